"""What the networks that are trained from scratch cost at the published size of NAS-Bench-360's tasks: `python -m
benchmarks.rivals`.

Each network takes one training step on random samples, on the CPU with one thread, in a process of its own; few samples at a
time, so that 8 GiB are enough. Time is that of the CPU, memory the peak of the process. The whole training is samples x epochs
of the published setting; an H100 is taken to sustain 20 TFLOP/s (float32, 30 % of its peak), operations being those of matrix
products and convolutions, which the network on the sphere has fewer of than of others. Writes benchmarks/evidence/rivals.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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
# Method, its label in the table, its settings. More rivals are more lines.
RIVALS = [
    ("hand_designed", "hand_designed", []),
    ("perceiver_io", "perceiver_io", []),
    ("perceiver_io", "perceiver_io nb360", ["--perceiver_io.variant=nb360"]),
]


def measure(name: str, method: str, arguments: list[str]) -> dict:
    """One training step of a method at the size of a task, in this process.

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
    config = parsing.parse([f"--task={name}", f"--method={method}", *arguments])
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
    learner = methods.get(method)
    model = learner.build(task, config)
    objective = learner.objective(task, model, config)
    optimizer = build_optimizer(model, objective, config.optimizer)
    batch = Batch(x, y, torch.arange(rows), torch.ones(rows))
    model.train()
    began = time.process_time()
    objective.losses(model, batch, Position(0, 1))["loss"].mean().backward()
    trained = time.process_time()
    optimizer.step()
    model.constrain()
    stepped = time.process_time()
    memory = memory_mib(torch.device("cpu"))
    few = Batch(x[:1], y[:1], torch.arange(1), torch.ones(1))
    with FlopCounterMode(display=False) as counter:
        objective.losses(model, few, Position(0, 1))["loss"].mean().backward()
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
    seen = TASKS[name].samples * found["epochs"]
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

Made by `python -m benchmarks.rivals`: one training step of each on the CPU, one thread, float32, random samples; few at a time,
so that 8 GiB are enough. The whole training is that many samples in the published number of epochs, projected from the step
here (hours of one core), and from its operations (matrix products and convolutions, forward and backward) to one H100 that
sustains 20 TFLOP/s, which small networks do not reach: these hours are a lower bound. Nothing was trained to the end.

Beside them: the searches of NAS-Bench-360 (architectures by GAEA, hyperparameters by ASHA) took from 10 to more than 100 GPU
hours for a task, by its authors' account.

| task | method | parameters | samples at a time | ms per sample | memory, GiB | GFLOP per sample | batch x epochs | core hours \
here | H100 hours |
| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |
"""


def main() -> int:
    """Command line: see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS), help="of NAS-Bench-360's ten, separated by commas")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.one:
        name, method, *more = arguments.one
        print(json.dumps(measure(name, method, more)))
        return 0
    lines = []
    paths = os.pathsep.join([str(ROOT / "python"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name in arguments.tasks.split(","):
        for method, label, more in RIVALS:
            command = [sys.executable, "-m", "benchmarks.rivals", "--one", name, method, *more]
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            lines.append(line(name, label, json.loads(done.stdout.splitlines()[-1])))
            print(lines[-1], flush=True)
    arguments.output.write_text(HEAD + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
