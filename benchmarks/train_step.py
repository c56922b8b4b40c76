"""What the operator is worth in training: `python -m benchmarks.train_step [--device cpu|cuda] [--size tiny|small|base]`.

One whole optimiser step of real encoders with random weights, in three ways:

    nft           naive fine-tuning: one pass of the encoder over the target samples
    pare          PaRe with this project's operator: source patches mixed in, one pass over twice the samples
    pare-paper    the same step with the paper's algorithm in the operator's place

`base` are the shapes of the paper (Swin-base at 224, RoBERTa-base); `small` has the same tokens per sample in shallower encoders,
for a machine of two cores; `tiny` only shows that it runs. Reported: samples/s, peak memory, and the operator's share of the step:
its forward and backward pass timed alone on tensors of the step's own shape, over the step's time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import RobertaConfig, RobertaModel, SwinConfig, SwinModel

from benchmarks.clock import Quantiles
from benchmarks.measure import fill_ratios, honest_ms
from benchmarks.memory import peak_mib
from benchmarks.providers.ours import backend
from benchmarks.providers.rivals import paper_mix
from benchmarks.records import Provenance, Row, append, results_path
from benchmarks.run import parse_device, positive
from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.data.normalizer import Normalizer
from crossmodal.methods._mixing_objective import PICTURED
from crossmodal.methods._patch_replacement import PatchReplacement
from crossmodal.methods.pare import Options
from crossmodal.models.encoders.base import Encoder
from crossmodal.models.encoders.image import SwinEncoder
from crossmodal.models.encoders.text import TextEncoder
from crossmodal.models.finetuned import FineTuned
from crossmodal.sources.base import Source
from crossmodal.tasks import Task
from crossmodal.training.objective import Objective, Position, Step
from pare_kernels import PatchReplaceResult

CLASSES = 10
STEPS_MEASURED = 5
POSITION = Position(1, 100)  # a step of a long run, with Gumbel noise


@dataclass(frozen=True)
class Setting:
    """An encoder with random weights and what it is trained on: samples, k replaced patches, source tokens per sample."""

    name: str
    make: Callable[[], Encoder]
    sample: Callable[[int], Tensor]
    source: Callable[[int], Tensor]
    batch: int
    k: int


def swin(depths: tuple[int, ...], heads: tuple[int, ...]) -> SwinModel:
    config = SwinConfig(image_size=224, patch_size=4, embed_dim=128, depths=depths, num_heads=heads, window_size=7)
    return SwinModel(config, add_pooling_layer=False)


def _swin(depths: tuple[int, ...], heads: tuple[int, ...]) -> SwinEncoder:
    statistics = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
    encoder = SwinEncoder(swin(depths, heads), name="swin", keep_source=True, image_size=(224, 224), **statistics)
    encoder.attach((3, 32, 32))
    return encoder


def _roberta(layers: int) -> TextEncoder:
    config = RobertaConfig(
        num_hidden_layers=layers,
        max_position_embeddings=514,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    encoder = TextEncoder(RobertaModel(config, add_pooling_layer=False), name="roberta", keep_source=True)
    encoder.attach((1, 1000), patch_size=20)
    return encoder


def _tiny() -> TextEncoder:
    """So small that what surrounds the encoder in each step stands out."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 100}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = RobertaModel(RobertaConfig(num_hidden_layers=1, **sizes, **dropout), add_pooling_layer=False)
    encoder = TextEncoder(model, name="tiny", keep_source=True)
    encoder.attach((1, 40), patch_size=4)
    return encoder


def _images(count: int) -> Tensor:
    return torch.randn(count, 3, 224, 224)


def _signals(count: int) -> Tensor:
    return torch.randn(count, 1, 1000)


def _sentences(count: int) -> Tensor:
    return torch.randint(5, 50000, (count, 32))


def _small_images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32)


def _short_signals(count: int) -> Tensor:
    return torch.randn(count, 1, 40)


def _words(count: int) -> Tensor:
    return torch.randint(5, 100, (count, 8))


SETTINGS = {
    "tiny": (Setting("tiny", _tiny, _short_signals, _words, 2, 4),),
    "small": (
        Setting("swin-small", lambda: _swin((1, 1), (4, 8)), _small_images, _images, 4, 2000),
        Setting("roberta-small", lambda: _roberta(2), _signals, _sentences, 16, 16),
    ),
    "base": (
        Setting("swin-base", lambda: _swin((2, 2, 18, 2), (4, 8, 16, 32)), _small_images, _images, 32, 2000),
        Setting("roberta-base", lambda: _roberta(12), _signals, _sentences, 64, 16),
    ),
}


def synthetic_task(setting: Setting, steps: int = 1) -> Task:
    """Random samples: `steps` full batches to train on, one for each of the other splits."""

    def split(count: int) -> ArrayDataset:
        return ArrayDataset(setting.sample(count), torch.arange(count) % CLASSES)

    train = split(steps * setting.batch)
    return Task(
        name=setting.name,
        kind="classification",
        train=train,
        validation=split(setting.batch),
        test=split(setting.batch),
        input_shape=tuple(train.x.shape[1:]),
        output_shape=(CLASSES,),
        class_names=tuple(map(str, range(CLASSES))),
        loss="cross_entropy",
        metrics=("accuracy",),
        normalizer=Normalizer.fit(train.x.numpy(), per_x="none"),
        description="random samples",
    )


def synthetic_source(setting: Setting, modality: str) -> Source:
    """Random samples of the pretraining modality, two batches of them."""
    inputs = setting.source(2 * setting.batch)
    labels = torch.arange(len(inputs)) % CLASSES
    return Source("random", modality, inputs, labels, tuple(map(str, range(CLASSES))), "", "")


class PaperReplacement(PatchReplacement):
    """PaRe with the paper's algorithm in the place of `patch_replace`."""

    def replace(
        self, tokens: Tensor, source_tokens: Tensor, position: Position, worth: Tensor | None = None
    ) -> PatchReplaceResult:
        k = self.k(position.epoch, position.epochs)
        mixed = paper_mix(tokens, source_tokens, self.gate.weight[0], self.gate.bias, None, k, self.options.tau)
        # The loss asks for lam alone.
        index = torch.empty(len(tokens), 0, dtype=torch.int64, device=tokens.device)
        return PatchReplaceResult(mixed, k / tokens.shape[1], index, index)


def make_step(setting: Setting, way: str, task: Task) -> Step:
    """Model and objective. way: "nft", "pare" or "pare-paper"."""
    torch.manual_seed(0)
    encoder = setting.make()
    model = FineTuned(encoder, "classification", CLASSES)
    if way == "nft":
        return Step(model, Objective(task))
    kind = PaperReplacement if way == "pare-paper" else PatchReplacement
    options = Options(schedule="constant", start=setting.k, end=setting.k)
    objective = kind(task, model, synthetic_source(setting, encoder.modality), options)
    return Step(model, objective)


def make_run(setting: Setting, way: str, device: torch.device) -> tuple[Callable[[], None], Step]:
    """One optimiser step as a function without arguments, and the module behind it."""
    step = make_step(setting, way, synthetic_task(setting)).to(device).train()
    optimizer = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=1e-5)
    labels = torch.arange(setting.batch) % CLASSES
    samples, source = setting.sample(setting.batch), setting.source(setting.batch)
    weight, index = torch.ones(setting.batch), PICTURED + torch.arange(setting.batch)
    extras = {"source": Batch(source, labels, index, weight)}
    batch = Batch(samples, labels, index, weight, extras).to(device)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        step(batch, POSITION)["loss"].mean().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run, step


def operator_alone(setting: Setting, step: Step, device: torch.device) -> Callable[[], None]:
    """Forward and backward pass of the step's own replacement on random tokens of its shape."""
    source_count = step.model.embed_source(setting.source(1).to(device)).shape[1]
    encoder, objective = step.model.encoder, step.objective
    target = torch.randn(setting.batch, encoder.num_tokens, encoder.width, device=device, requires_grad=True)
    source = torch.randn(
        setting.batch, source_count, encoder.width, device=device
    )  # frozen: no gradient, as in the step
    upstream = torch.randn_like(target)

    def run() -> None:
        mixed = objective.replace(target, source, POSITION).mixed
        torch.autograd.grad(mixed, (target, *objective.gate.parameters()), upstream)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def seconds_of(functions: dict[str, Callable[[], None]], repeats: int) -> dict[str, tuple[Quantiles, float]]:
    """Per function: quantiles of wall milliseconds, and the median CPU milliseconds of the process; interleaved."""
    wall, cpu = {name: [] for name in functions}, {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter(), time.process_time()
            function()
            wall[name].append((time.perf_counter() - start[0]) * 1e3)
            cpu[name].append((time.process_time() - start[1]) * 1e3)
    return {name: (Quantiles.of(wall[name]), Quantiles.of(cpu[name]).median) for name in functions}


def blank_row(setting: Setting, way: str, encoder: Encoder, **fields) -> Row:
    """The row of a way to train, without what was measured."""
    return Row(
        case=setting.name,
        batch=setting.batch,
        num_target=encoder.num_tokens,
        dim=encoder.width,
        k=setting.k if way != "nft" else 0,
        dtype="float32",
        threads=torch.get_num_threads(),
        **fields,
    )


WAYS = {"nft": "ours", "pare": "ours", "pare-paper": "paper"}


def measure(setting: Setting, device: torch.device) -> list[Row]:
    """A row per way: the whole step in `both_ms`, samples/s, peak memory of a step beyond model, optimizer state and batch."""
    made = {way: make_run(setting, way, device) for way in WAYS}
    functions = {way: run for way, (run, _) in made.items()}
    operators = {way: operator_alone(setting, made[way][1], device) for way in WAYS if way != "nft"}
    times = seconds_of(functions | {f"operator of {way}": run for way, run in operators.items()}, STEPS_MEASURED)
    rows = []
    for way, family in WAYS.items():
        encoder = made[way][1].model.encoder
        names = {"operation": "train_step", "provider": way, "family": family}
        names["backend"] = backend(device) if way == "pare" else "torch"
        row = blank_row(setting, way, encoder, samples=STEPS_MEASURED, **names)
        (row.both_ms, row.both_p20_ms, row.both_p80_ms), cpu = astuple(times[way][0]), times[way][1]
        row.both_cpu_ms = cpu if device.type == "cpu" else None
        row.samples_per_s = 1e3 * setting.batch / honest_ms(row)
        if way in operators:
            quantiles, cpu_alone = times[f"operator of {way}"]
            alone = cpu_alone if device.type == "cpu" and row.threads == 1 else quantiles.median
            row.operator_share = alone / honest_ms(row)
        row.peak_mib = peak_mib(functions[way], device)
        rows.append(row)
    fill_ratios(rows)
    return rows


def table(setting: Setting, rows: Sequence[Row]) -> str:
    first = rows[0]
    lines = [
        f"{setting.name}: B {first.batch}, N {first.num_target}, D {first.dim}, k {setting.k}, {first.threads} thread(s)",
        f"  {'way':12} {'step ms':>9} {'CPU ms':>9} {'samples/s':>10} {'peak MiB':>9} {'operator':>9} {'x paper':>8}",
    ]
    for row in rows:
        cpu = "" if row.both_cpu_ms is None else f"{row.both_cpu_ms:.0f}"
        share = "" if row.operator_share is None else f"{row.operator_share:.1%}"
        memory = "" if row.peak_mib is None else f"{row.peak_mib:.0f}"
        lines.append(
            f"  {row.provider:12} {row.both_ms:9.0f} {cpu:>9} {row.samples_per_s:10.2f} {memory:>9} {share:>9} "
            f"{row.over_paper or 0:8.2f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="small", choices=SETTINGS, help="default: small")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda[:N]", help="default: cpu")
    parser.add_argument("--threads", type=positive, default=1, help="default: 1")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="default: benchmarks/results/<device>.csv")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    device = parse_device(parser, options.device)
    provenance = Provenance.here(device, "train_step")
    torch.set_num_threads(options.threads)
    print(provenance)
    csv = None if options.no_csv else options.csv or results_path(device)
    try:
        for setting in SETTINGS[options.size]:
            rows = [provenance.stamp(row) for row in measure(setting, device)]
            print("\n" + table(setting, rows), flush=True)
            if csv is not None:
                append(csv, rows)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
