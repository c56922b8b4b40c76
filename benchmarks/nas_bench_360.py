"""What training on NAS-Bench-360 costs: `python -m benchmarks.nas_bench_360 [--tasks ecg,satellite] [-o FILE]`.

For each task one training step of PaRe with the settings of the paper, in float32: the encoder at its full size with random
weights, samples of the public size (from the miniatures, which are made in a temporary folder), source samples of the kind the
paper has. The batch is cut to `--batch`, and figures of the paper's batch are scaled from it. Counted and projected is the training
alone: no validation, no test, no reading of data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import RobertaConfig, RobertaModel

from benchmarks.memory import peak_mib
from benchmarks.records import Provenance
from benchmarks.run import positive
from benchmarks.train_step import swin
from crossmodal import miniature, parsing, run
from crossmodal.files import read_yaml
from crossmodal.training.objective import Position, Step
from crossmodal.training.optim import build_optimizer

# Samples of an epoch in the paper's runs: training and validation part together. ECG: windows; FSD50K: clips.
SAMPLES = {
    "cifar100": 50_000,
    "spherical": 50_000,
    "darcy_flow": 1_000,
    "psicov": 3_456,
    "cosmic": 4_830,
    "ninapro": 3_297,
    "fsd50k": 37_000,
    "ecg": 293_000,
    "satellite": 900_000,
    "deepsea": 74_243,
}
PEAK = 989e12  # FLOP/s of an H100 (SXM), dense bf16, by its data sheet
REACHED = 0.4  # of that
DATA_PARALLEL = 0.9  # what eight GPUs reach of eight times one
REPEATS = 3
GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """What was measured of a task, with batches of `batch`.

    tokens: N of a sample. trained, frozen: parameters. flop: of a step. seconds: median of a step, CPU time of all threads.
    peak: bytes that a step takes beyond weights and optimizer state, gradients included. state: bytes of these. saved: bytes that
    the forward pass keeps for the backward pass.
    """

    task: str
    encoder: str
    tokens: int
    trained: int
    frozen: int
    batch: int
    paper_batch: int
    epochs: int
    flop: float
    seconds: float
    peak: float
    state: float
    saved: float

    @property
    def paper_memory(self) -> float:
        """Bytes of a step with the paper's batch, all in all."""
        return self.state + 4 * self.trained + self.paper_batch / self.batch * self.saved

    @property
    def training_flop(self) -> float:
        return self.flop / self.batch * SAMPLES[self.task] * self.epochs

    def hours(self, gpus: int = 1) -> float:
        """Of the whole training."""
        rate = PEAK * REACHED * gpus * (DATA_PARALLEL if gpus > 1 else 1)
        return self.training_flop / rate / 3600


def roberta_base() -> RobertaModel:
    return RobertaModel(RobertaConfig(max_position_embeddings=514, type_vocab_size=1), add_pooling_layer=False)


SHAPES = {"swin-base": lambda: swin((2, 2, 18, 2), (4, 8, 16, 32)), "roberta-base": roberta_base}


def write_sources(folder: Path, width: int, samples: int) -> dict[str, Path]:
    """Noise in the public formats, by what it is for: text features (32 tokens), images in two classes, images with masks."""
    rng = np.random.default_rng(0)
    names = [f"{number:04d}" for number in range(samples)]
    voc = folder / "VOC2012"
    for place in (
        "images/a",
        "images/b",
        "VOC2012/JPEGImages",
        "VOC2012/SegmentationClass",
        "VOC2012/ImageSets/Segmentation",
    ):
        (folder / place).mkdir(parents=True)
    for number, name in enumerate(names):
        picture = Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8))
        picture.save(folder / "images" / "ab"[number % 2] / f"{name}.png")
        picture.save(voc / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(rng.integers(2, size=(64, 64), dtype=np.uint8)).save(voc / "SegmentationClass" / f"{name}.png")
    (voc / "ImageSets/Segmentation/trainval.txt").write_text("\n".join(names))
    np.save(folder / "text_xs.npy", rng.standard_normal((samples, 32, width)).astype(np.float32))
    np.save(folder / "text_ys.npy", np.arange(samples) % 8)
    return {"text": folder / "text_xs.npy", "image": folder / "images", "masks": voc}


def saved_bytes(step: Step, forward: Callable[[], object]) -> int:
    """Bytes of what a forward pass keeps for the backward pass, each block once, without parameters."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    for parameter in step.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del result  # until here the blocks were held, and no address stood for two
    return sum(kept.values())


def measure(task_name: str, encoder: Path, sources: dict[str, Path], batch: int, folder: Path) -> Cost:
    """One task; its miniature is made below the folder."""
    values = read_yaml(parsing.TASK_CONFIGS / f"{task_name}.yaml") | {"task": task_name, "method": "pare"}
    values.pop("pare_released", None)
    config = parsing.from_dict(values)
    name = config.encoder
    miniature.make(task_name, folder / task_name)
    kind = (
        "text"
        if name.startswith("roberta")
        else "masks"
        if task_name in ("darcy_flow", "psicov", "cosmic")
        else "image"
    )
    source = dataclasses.replace(config.source, name=str(sources[kind]))
    config = dataclasses.replace(
        config, encoder=str(encoder), data_dir=str(folder / task_name), source=source, augment=None, device="cpu"
    )
    task, model, objective = run.build(config)
    step = Step(model, objective).train()
    rows = torch.arange(batch)
    samples = task.train.read(rows)
    samples = dataclasses.replace(samples, extras=samples.extras | {"source": objective.source.read(rows)})
    optimizer = build_optimizer(model, objective, config.optimizer)

    def forward() -> torch.Tensor:
        return step(samples, Position(0, config.epochs))["loss"].mean()

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
        optimizer.step()

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is not counted
        once()
    saved = saved_bytes(step, forward)
    optimizer.zero_grad(set_to_none=True)
    peak = peak_mib(once, torch.device("cpu"))
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        once()
        seconds.append(time.process_time() - start)
    parameters = list(step.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    moments = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    return Cost(
        task=task_name,
        encoder=name,
        tokens=model.encoder.num_tokens,
        trained=trained,
        frozen=sum(p.numel() for p in parameters) - trained,
        batch=batch,
        paper_batch=config.batch_size,
        epochs=config.epochs,
        flop=float(counter.get_total_flops()),
        seconds=statistics.median(seconds),
        peak=(peak or float("nan")) * 2**20,
        saved=float(saved),
        state=moments + sum(p.numel() * p.element_size() for p in parameters),
    )


MEASURED = """# What training on NAS-Bench-360 costs

Made by `python -m benchmarks.nas_bench_360 -o FILE`. {made}.

One training step of `pare` with the settings of the paper for each task: Swin-base at 224 x 224 pixels (3136 tokens) or
RoBERTa-base, at full size with random weights, in float32, with samples of the public size and k of the first epoch. Each step
takes a clean and a mixed pass over its samples, forward and backward, and ends with the optimizer. Nothing here says how well a
task is learned.

## Measured on the CPU, and scaled to the paper's batch

FLOP: as torch counts them (a multiply-add is two), of a step with the batch that was measured; the operator itself and what is
elementwise are not counted. Seconds: CPU time of such a step. GiB: weights, moments of the optimizer, and what a step takes
beyond them at its peak, gradients included. All these depend on the shapes of the samples, not on what they hold. At the
paper's batch: weights, moments, gradients, and what the forward pass keeps for the backward pass, scaled. Gradients that are
accumulated over several batches take no more.

| task | encoder | tokens | trained, M | batch | TFLOP per step | s per step | GiB | paper's batch | GiB with it |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
PROJECTED = """
## Projected: the whole training on H100s

Not measured. Assumed: {reached:.0%} of the {peak:.0f} TFLOP/s of dense bf16 in the data sheet, which short sequences and small
batches (`psicov`: 1, `darcy_flow` and `cosmic`: 4) will not reach: take the hours as a lower bound. On eight GPUs
{parallel:.0%} of eight times one, as if the samples of an optimizer step could be divided by eight, which the four of
`darcy_flow` and `cosmic` cannot. Data come as fast as they are asked for. PFLOP: FLOP per sample, times samples of an epoch in
the paper's runs (training and validation part), times epochs.

| task | samples per epoch | epochs | PFLOP | hours on one H100 | hours on eight |
| --- | ---: | ---: | ---: | ---: | ---: |
"""


def document(costs: Sequence[Cost], provenance: Provenance, threads: int) -> str:
    """Markdown."""
    made = f"{provenance.device}; torch {provenance.torch}; commit {provenance.commit}; {provenance.date[:10]}"
    text = MEASURED.format(made=f"{made}; {threads} thread(s)")
    for cost in costs:
        text += (
            f"| `{cost.task}` | {cost.encoder} | {cost.tokens} | {cost.trained / 1e6:.1f} | {cost.batch} | {cost.flop / 1e12:.3g} "
            f"| {cost.seconds:.1f} | {(cost.state + cost.peak) / GIB:.1f} | {cost.paper_batch} | {cost.paper_memory / GIB:.1f} |\n"
        )
    text += PROJECTED.format(reached=REACHED, peak=PEAK / 1e12, parallel=DATA_PARALLEL)
    for cost in costs:
        text += (
            f"| `{cost.task}` | {SAMPLES[cost.task]:,} | {cost.epochs} | {cost.training_flop / 1e15:,.0f} | {cost.hours():.2f} "
            f"| {cost.hours(8):.2f} |\n"
        )
    total = [sum(cost.hours(gpus) for cost in costs) for gpus in (1, 8)]
    return text + f"| all | | | {sum(c.training_flop for c in costs) / 1e15:,.0f} | {total[0]:.1f} | {total[1]:.1f} |\n"


def measure_alone(name: str, batch: int, threads: int) -> Cost:
    """One task with the full-size encoder, in this process; files go to a temporary folder."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        encoder = read_yaml(parsing.TASK_CONFIGS / f"{name}.yaml")["encoder"]
        SHAPES[encoder]().save_pretrained(folder / encoder)
        return measure(name, folder / encoder, write_sources(folder, 768, 2 * batch), batch, folder)


def read_kept(path: Path, run: dict[str, object]) -> dict[str, Cost]:
    """What was measured before with the same `run` (commit, device, batch, threads), by task."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return {one["cost"]["task"]: Cost(**one["cost"]) for one in found if one["run"] == run}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nas_bench_360", description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default=",".join(SAMPLES), help="default: all ten")
    parser.add_argument("--batch", type=positive, default=2, help="samples per step; default: 2")
    parser.add_argument("--threads", type=positive, default=1, help="default: 1")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="Markdown; default: print only, and keep nothing"
    )
    options = parser.parse_args(arguments)
    names = options.tasks.split(",")
    unknown = [name for name in names if name not in SAMPLES]
    if unknown:
        parser.error(f"argument --tasks: unknown task {unknown[0]!r}; valid are {', '.join(SAMPLES)}")
    here = Provenance.here(torch.device("cpu"))
    run = {"commit": here.commit, "device": here.device, "torch": here.torch}
    run |= {"batch": options.batch, "threads": options.threads}
    kept = options.output.with_name(f"{options.output.name}.jsonl") if options.output else None
    costs = read_kept(kept, run) if kept else {}
    for name in names:
        if name in costs:
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            try:
                costs[name] = alone.submit(measure_alone, name, options.batch, options.threads).result()
            except BrokenProcessPool:
                print(f"{name}: its process was killed (memory?); the same command goes on with it", file=sys.stderr)
                return 1
        print(costs[name], flush=True)
        if kept:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": run, "cost": dataclasses.asdict(costs[name])}) + "\n")
    text = document([costs[name] for name in names], here, options.threads)
    print(text)
    if kept:
        options.output.write_text(text, encoding="utf-8")
        kept.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
