"""What the networks that are trained from scratch cost at the published size of NAS-Bench-360's tasks: `python -m
benchmarks.rivals`.

Each network takes one training step on random samples, on the CPU with one thread, in a process of its own; few samples at a
time. Time is that of the CPU, memory the peak of the process; what wants more than `--most` GiB is a row that says so. The whole
training is samples x epochs of the published setting; an H100 is taken to sustain 20 TFLOP/s (float32, 30 % of its peak),
operations being those of matrix products and convolutions, which the network on the sphere has fewer of than of others. Writes
benchmarks/evidence/rivals.md, in which rows that are not measured anew (`--tasks`, `--methods`) stay as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "evidence" / "rivals.md"
SUSTAINED = 20e12  # operations per second


@dataclass(frozen=True)
class Published:
    """A task at its published size.

    rows: samples of one step here. samples: of the training part.
    """

    kind: str
    shape: tuple[int, ...]
    outputs: int
    loss: str
    samples: int
    rows: int


TASKS = {
    "cifar100": Published("classification", (3, 32, 32), 100, "cross_entropy", 40_000, 16),
    "spherical": Published("classification", (3, 60, 60), 100, "cross_entropy", 40_000, 4),
    "darcy_flow": Published("dense", (3, 85, 85), 1, "relative_l2", 900, 8),
    "psicov": Published("dense", (57, 512, 512), 1, "mse", 3_356, 2),
    "cosmic": Published("dense", (1, 128, 128), 1, "bce_with_logits", 4_347, 8),
    "ninapro": Published("classification", (1, 16, 52), 18, "cross_entropy", 2_638, 128),
    "fsd50k": Published("multilabel", (1, 96, 102), 200, "bce_with_logits_10", 37_000, 16),
    "ecg": Published("classification", (1, 1000), 4, "cross_entropy", 260_000, 8),
    "satellite": Published("classification", (1, 46), 24, "cross_entropy", 800_000, 64),
    "deepsea": Published("multilabel", (4, 1000), 36, "bce_with_logits_4", 71_000, 16),
}
CELLS = ("spherical", "darcy_flow", "psicov", "cosmic", "ecg", "satellite")


@dataclass(frozen=True)
class Rival:
    """A network in training.

    label: in the table. method, arguments: as for train.py. tasks: of which it is measured. searches: the step is one of the first
    stage of the method, over so many epochs.
    """

    label: str
    method: str
    arguments: tuple[str, ...] = ()
    tasks: tuple[str, ...] = tuple(TASKS)
    searches: int | None = None


# More rivals are more lines.
RIVALS = (
    Rival("hand_designed", "hand_designed"),
    Rival("perceiver_io", "perceiver_io"),
    Rival("perceiver_io nb360", "perceiver_io", ("--perceiver_io.variant=nb360",)),
    # 100 epochs of a fifth of the batches.
    Rival("dash: search", "dash", searches=20),
    Rival("dash: training", "dash", ("--epochs=200",)),
    Rival("nas: search of cells", "nas", ("--nas.search=search",), CELLS, 50),
    Rival("nas: cells", "nas", ("--nas.size=published", "--epochs=150"), CELLS),
    Rival("nas: WRN-16-4", "nas", ("--epochs=200", "--batch_size=128"), ("cifar100", "ninapro")),
    Rival("nas: chain of blocks", "nas", ("--epochs=240",), ("fsd50k",)),
    Rival("nas: search by controller", "nas", (), ("deepsea",), 60),
    Rival("nas: drawn layers", "nas", ("--epochs=60",), ("deepsea",)),
)


class Started(Exception):
    """A method has handed a network and its objective to the trainer."""


def first_stage(learner, task, model, objective, config) -> tuple:
    """Network, objective and optimizer settings of the first stage of a method."""

    def train(model, objective, *, stage=None, epochs=None, schedule=None, **optimizer):
        raise Started(model, objective, config.changed(optimizer=optimizer).optimizer)

    said = SimpleNamespace(print=print)
    try:
        learner.fit(
            SimpleNamespace(config=config, task=task, model=model, objective=objective, accelerator=said, train=train)
        )
    except Started as started:
        return started.args
    raise AssertionError("no stage")


def measure(name: str, label: str) -> dict:
    """One training step of a rival at the size of a task, in this process.

    Returns:
        `parameters`, `seconds` (forward and backward, per sample), `step` (seconds of the optimizer), `operations` (per sample),
        `memory` (MiB), `batch_size` and `epochs` of the published setting.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from crossmodal import methods, parsing
    from crossmodal.data.dataset import ArrayDataset, Batch
    from crossmodal.data.normalizer import Normalizer
    from crossmodal.tasks import Task
    from crossmodal.training.objective import Position
    from crossmodal.training.optim import build_optimizer
    from crossmodal.training.trainer import memory_mib

    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = TASKS[name]
    rival = next(one for one in RIVALS if one.label == label)
    config = parsing.parse([f"--task={name}", f"--method={rival.method}", *rival.arguments])
    config = replace(config, epochs=rival.searches or config.epochs)
    field = size.kind == "dense"
    rows = min(size.rows, config.batch_size)
    target_shape = (rows, size.outputs, *size.shape[1:]) if field else (rows, size.outputs)
    x, y = (
        torch.randn(rows, *size.shape),
        torch.rand(target_shape).round() + 0.5 * (size.loss in ("mse", "relative_l2")),
    )
    y = torch.arange(rows) % size.outputs if size.kind == "classification" else y
    zero, one = torch.zeros(size.shape[0], *[1] * (len(size.shape) - 1)).double(), torch.ones(1).double()
    task = Task(
        name=name,
        kind=size.kind,
        train=ArrayDataset(x, y),
        validation=ArrayDataset(x, y),
        test=ArrayDataset(x, y),
        input_shape=size.shape,
        output_shape=target_shape[1:],
        class_names=(),
        loss=config.loss or size.loss,
        metrics=(),
        normalizer=Normalizer(size.shape, zero, one),
        description="",
    )
    learner = methods.get(rival.method)
    model = learner.build(task, config)
    objective, settings = learner.objective(task, model, config), config.optimizer
    if rival.searches:
        model, objective, settings = first_stage(learner, task, model, objective, config)
    optimizer = build_optimizer(model, objective, settings)

    def batch(rows: int) -> Batch:
        # Searches of architectures learn from another batch as well.
        one = Batch(x[:rows], y[:rows], torch.arange(rows), torch.ones(rows))
        return Batch(one.x, one.y, one.index, one.weight, dict.fromkeys(objective.companions, one))

    model.train()
    began = time.process_time()
    objective.losses(model, batch(rows), Position(0, 1))["loss"].mean().backward()
    trained = time.process_time()
    objective.before_step(model)
    optimizer.step()
    model.constrain()
    stepped = time.process_time()
    memory = memory_mib(torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        objective.losses(model, batch(1), Position(0, 1))["loss"].mean().backward()
    return {
        "parameters": model.count_parameters(),
        "seconds": (trained - began) / rows,
        "step": stepped - trained,
        "operations": counter.get_total_flops(),
        "memory": memory,
        "batch_size": config.batch_size,
        "epochs": config.epochs,
        "rows": rows,
    }


def line(name: str, label: str, found: dict) -> str:
    """A row of the table."""
    size = TASKS[name]
    if "refused" in found:
        return f"| {name} | {label} | | {size.rows} | | more than {found['refused']} | | | | |"
    seen = size.samples * found["epochs"]
    here = seen * found["seconds"] + math.ceil(seen / found["batch_size"]) * found["step"]
    there = seen * found["operations"] / SUSTAINED
    cells = [
        name,
        label,
        f"{found['parameters']:,}",
        f"{found['rows']}",
        f"{1000 * found['seconds']:.3g}",
        f"{found['memory'] / 1024:.2f}",
        f"{found['operations'] / 1e9:.3g}",
        f"{found['batch_size']} x {found['epochs']}",
        f"{here / 3600:,.0f}" if here >= 36_000 else f"{here / 3600:.2g}",
        f"{there / 3600:.2g}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = """# Networks from scratch at the published sizes

Made by `python -m benchmarks.rivals`: one training step of each on the CPU, one thread, float32, random samples, few at a time.
Times are those of the CPU, on a machine with two cores that did other work besides, which makes a step up to twice as long. The
whole training is that many samples in the published number of epochs, projected from the step here (hours of one core), and from
its operations (matrix products and convolutions, forward and backward) to one H100 that sustains 20 TFLOP/s, which small networks
do not reach: these hours are a lower bound. Nothing was trained to the end.

Of searches: DASH's tuning comes between its search and its training, 24 trials of 80 epochs, each of 1 to 20 % of the batches; its
training has kernels of length 3 here, those that are found may be longer. Successive halving trains up to 128 such WRN-16-4, most
of them for less than a tenth of the epochs, and the random search of chains of blocks 30 networks for 10 epochs each. Of the
recurrent controller neither the epochs nor the network that it found are published: here are 60, and convolutions throughout.
Batches are those of the task's settings where nothing is published.

Beside them: the searches of NAS-Bench-360 (architectures by GAEA, hyperparameters by ASHA) took from 10 to more than 100 GPU
hours for a task, by its authors' account.

| task | method | parameters | samples at a time | ms per sample | memory, GiB | GFLOP per sample | batch x epochs | core hours \
here | H100 hours |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |
"""


def known(path: Path) -> dict[tuple[str, str], str]:
    """Rows of a table that was written before, by task and label."""
    if not path.is_file():
        return {}
    rows = [row for row in path.read_text().splitlines() if row.startswith("| ")]
    return {tuple(cell.strip() for cell in row.split("|")[1:3]): row for row in rows}


def main() -> int:
    """Command line: see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS), help="of NAS-Bench-360's ten, separated by commas")
    parser.add_argument("--methods", default="hand_designed,perceiver_io,dash,nas", help="separated by commas")
    parser.add_argument("--missing", action="store_true", help="measure only rows that the file lacks")
    parser.add_argument("--most", type=int, default=16, help="GiB that a process may have")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.one:
        resource.setrlimit(resource.RLIMIT_DATA, (arguments.most * 2**30,) * 2)
        try:
            print(json.dumps(measure(*arguments.one)))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            print(json.dumps({"refused": arguments.most}))
        return 0
    paths = os.pathsep.join([str(ROOT / "python"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    lines, order = known(arguments.output), [(name, rival) for name in TASKS for rival in RIVALS if name in rival.tasks]
    for name, rival in order:
        here = name in arguments.tasks.split(",") and rival.method in arguments.methods.split(",")
        if not here or (arguments.missing and (name, rival.label) in lines):
            continue
        command = [sys.executable, "-m", "benchmarks.rivals", "--most", str(arguments.most), "--one", name, rival.label]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        lines[name, rival.label] = line(name, rival.label, json.loads(done.stdout.splitlines()[-1]))
        print(lines[name, rival.label], flush=True)
        kept = [lines[name, rival.label] for name, rival in order if (name, rival.label) in lines]
        arguments.output.write_text(HEAD + "\n".join(kept) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
