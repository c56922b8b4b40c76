"""Command lines of evaluate, predict and compare; train's is made of its settings, see `parsing`.

Nothing here imports torch, which takes seconds: help and misspelled options are answered at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SPLITS = ("train", "validation", "test")


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
        "input", type=Path, help=".npz, .h5, .npy, .csv or .ts with samples in the units the run was trained on"
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
        description="Run several methods and seeds side by side and print one table.",
        epilog="All other options are those of train.py, but --method, --seed and --output_dir, and go to every run; "
        "those of a method (--pare.tau) go to its runs.",
        allow_abbrev=False,
    )
    parser.add_argument("--methods", default="pare,nft,scratch", help="separated by commas")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument(
        "--runs_dir",
        type=Path,
        default=Path("runs"),
        help="folder of the runs and of <task>-comparison.md, .json and .png",
    )
    parser.add_argument("--jobs", type=int, default=None, help="runs at a time (default: one per CPU core)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace runs that were done with other settings or data"
    )
    return parser
