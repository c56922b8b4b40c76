"""Command lines of evaluate, predict, compare, generate and miniature, and of `train.py --download`; the rest of train's is made
of its settings, see `parsing`.

Nothing here imports torch, which takes seconds: help and misspelled options are answered at once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

SPLITS = ("train", "validation", "test")
EQUATIONS = (
    "advection",
    "burgers",
    "darcy",
    "darcy_flow",
    "diffusion_reaction_1d",
    "diffusion_reaction_2d",
    "diffusion_sorption",
    "navier_stokes_1d",
    "shallow_water",
)


def cpu_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def download() -> argparse.ArgumentParser:
    """Of `train.py --download`."""
    parser = argparse.ArgumentParser(prog="train.py", description="Fetch the public files of a task.")
    parser.add_argument("--download", metavar="TASK", required=True, help="whose files to fetch")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder to put them into")
    return parser


def evaluate() -> argparse.ArgumentParser:
    """Of `evaluate.py`."""
    parser = argparse.ArgumentParser(prog="evaluate.py", description="Repeat the figure of a finished run.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--device", default="cpu", help="where to compute, e.g. cuda")
    return parser


def predict() -> argparse.ArgumentParser:
    """Of `predict.py`."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Predict with a finished run.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument(
        "input",
        type=Path,
        help=".npz, .h5, .npy, .csv or .ts with samples in the units the run was trained on; or a table (.csv, .tsv, .parquet) "
        "with the columns, a recording, an image or a folder of these, if the run learned from such",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=".npz, .npy or .csv to write: classes as they are in the data of the run (.csv: by name), values in their units",
    )
    parser.add_argument("--key", help="name of the array in a .npz or .h5 input (default: x, or the only one)")
    parser.add_argument(
        "--header",
        choices=("yes", "no"),
        help="whether the first line of a .csv input is names of columns (default: found out, or asked for where in doubt)",
    )
    parser.add_argument("--batch_size", type=int, default=256, help="samples at a time (default: 256)")
    parser.add_argument("--steps", type=int, help="frames of a roll-out (default: as many as the run was evaluated by)")
    parser.add_argument("--device", default="cpu", help="where to compute, e.g. cuda")
    return parser


def compare() -> argparse.ArgumentParser:
    """Of `compare.py`, which hands every other option to the runs."""
    parser = argparse.ArgumentParser(
        prog="compare.py",
        description="Run tasks x methods x seeds, what is missing of them, and print one table.",
        epilog="All other options are those of train.py, but --method, --seed, --output_dir, --resume and --check_only, and go "
        "to every run; those of a method (--pare.tau) go to its runs. Runs that are done are taken as they are, interrupted ones "
        "go on: start a comparison that was killed, or whose runs failed, again.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="YAML file with tasks, methods (both names, or mappings {method: pare, label: NAME, KEY: VALUE, "
        "grid: {KEY: [VALUES]}}: of a grid the best on validation), seeds and options of all runs; the command line goes "
        "before it: of tasks and methods that the file lists --tasks and --methods choose some, by label or name",
    )
    parser.add_argument("--tasks", "--task", help="separated by commas (default: that of train.py)")
    parser.add_argument(
        "--methods",
        help="separated by commas (default: pare,nft,scratch), or all: every method that suits the task (about 20 runs; of a table "
        "those that look at neighbouring values are left out, as its columns are in no order)",
    )
    parser.add_argument("--seeds", help="separated by commas (default: 0,1,2; of all methods 0)")
    parser.add_argument(
        "--runs_dir",
        type=Path,
        default=Path("runs"),
        help="folder of the runs and of the comparison: its table as .md, .tex and .csv, all numbers as .json, pictures; "
        "called as the plan, else <task>-comparison or, of several tasks, comparison",
    )
    parser.add_argument(
        "--jobs", type=int, default=None, help="runs at a time (default: one per CPU core; with --cluster slurm all)"
    )
    parser.add_argument(
        "--cluster",
        choices=("slurm", "local"),
        help="submit the runs through submitit, to SLURM or as a rehearsal on this machine; --cluster.KEY VALUE goes to it: "
        "timeout_min (needed), cpus_per_task, gpus_per_node, mem_gb, slurm_partition, ...",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace runs that were done with other settings or data"
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="add all figures of other works that are known (without it: those of the tasks that are compared)",
    )
    return parser


def generate() -> argparse.ArgumentParser:
    """Of `generate.py`."""
    parser = argparse.ArgumentParser(
        prog="generate.py",
        description="Draw initial states at random, solve the equation, and write what PDEBench's files hold.",
    )
    parser.add_argument("equation", help="one of " + ", ".join(EQUATIONS))
    parser.add_argument("--samples", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--resolution", type=int, help="cells along each axis (default: those of the published file)")
    parser.add_argument("--seed", type=int, default=0, help="with it each sample is the same anywhere (default: 0)")
    parser.add_argument(
        "--transient", action="store_true", help="darcy: the state at t = 1.75, as published, not the steady one"
    )
    parser.add_argument("--jobs", type=int, help="processes at a time (default: one per CPU core)")
    parser.add_argument(
        "--part",
        metavar="I/N",
        default="1/1",
        help="compute every N-th piece alone, from the I-th on, for machines that share a folder; the last to end writes the file",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help=".hdf5, .h5 or, of darcy_flow, .mat to write")
    return parser


def miniature() -> argparse.ArgumentParser:
    """Of `miniature.py`."""
    parser = argparse.ArgumentParser(
        prog="miniature.py",
        description="Make a small set in the public format of a task, for trying, testing and teaching: no result on it stands "
        "for the real task.",
    )
    parser.add_argument("task", help="a task that reads public files (train.py --list names them)")
    parser.add_argument("--seed", type=int, default=0, help="with it the files are the same anywhere (default: 0)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder to write into, the --data_dir of train.py"
    )
    return parser
