"""ORCA: align, then refine (Shen et al., ICML 2023).

In a first stage the target embedder alone learns to bring its features towards those of the pretraining modality, in which the
encoder is at home. Features are tokens, averaged over a sample; those of the source come from the pretrained embedding. With
n_c of n target samples in class c it minimises

    sum_c n_c / n * d(source, target samples of class c)

for d the optimal transport dataset distance (`crossmodal.alignment`), each class by itself against the whole source as in the
authors' code. Targets that are no classes are divided into ten clusters. The second stage is fine-tuning of everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crossmodal.errors import UserError
from crossmodal.methods.base import register
from crossmodal.methods.finetuning import FineTuningMethod, load_source
from crossmodal.values import Count, Positive

if TYPE_CHECKING:
    from crossmodal.methods._alignment import Aligned
    from crossmodal.models.finetuned import FineTuned


@dataclass
class Options:
    """The alignment of target and source features before fine-tuning.

    Args:
        alignment: distance that is minimised: optimal transport dataset distance, maximum mean discrepancy, or the mean
            Euclidean distance.
        epochs: passes over the training samples in which the embedder alone is aligned.
        lr: peak learning rate of the embedder in these epochs.
        samples: at most so many source samples, and so many target samples per step; fewer of these where they would take more
            than 4 GiB.
    """

    alignment: Literal["otdd", "mmd", "l2"] = "otdd"
    epochs: Count = 60
    lr: Positive = 1e-3
    samples: Count = 1000


@register
class ORCA(FineTuningMethod):
    """Two stages; what the distance was before and after the first is in results.json."""

    name = "orca"
    description = "target features aligned with the source's, then full fine-tuning (two stages)"
    Options = Options
    pictures = ("alignment.png",)

    def objective(self, task, model: FineTuned, config) -> Aligned:
        from crossmodal.methods._alignment import Aligned, Alignment

        source = load_source(model, config)
        if source.has_masks:
            raise UserError(
                f"source.name: orca aligns classes, and samples of {source.name} have masks; take another source"
            )
        return Aligned(task, Alignment(task, source, config.options, config.split.seed))

    def fit(self, run) -> FineTuned:
        model, options = run.model.to(run.accelerator.device), run.config.options
        aligned, alignment = run.objective, run.objective.alignment
        embedder = {id(parameter) for parameter in model.encoder.embedder.parameters()}
        frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in embedder]
        for parameter in frozen:
            parameter.requires_grad_(False)
        # As few batches as hold all samples, of nearly one size.
        samples = len(run.task.train)
        batches = -(-samples // alignment.most)
        with run.accelerator.autocast():
            before = alignment.measure(model, run.task.train)
        run.train(
            model,
            alignment,
            stage="alignment",
            epochs=options.epochs,
            batch_size=-(-samples // batches),
            lr=options.lr,
            new_lr=options.lr,
            layer_decay=1.0,
        )
        with run.accelerator.autocast():
            aligned.distances = {"before": before, "after": alignment.measure(run.model, run.task.train)}
        run.accelerator.print(
            "{}: {before:.4g} before the alignment, {after:.4g} after".format(options.alignment, **aligned.distances)
        )
        for parameter in frozen:
            parameter.requires_grad_(True)
        return run.train(run.model, aligned)

    def draw(self, run) -> dict:
        from crossmodal.drawing import of_training
        from crossmodal.methods._alignment_pictures import course

        return {"alignment.png": course(run.history, run.config.options.alignment, of_training(run))}
