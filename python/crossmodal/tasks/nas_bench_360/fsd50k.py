"""FSD50K: which of 200 kinds of sounds are in a clip (Fonseca et al., 2022, as NAS-Bench-360 has it).

Clips are cut into pieces of a second, every half second, whose log-mel spectrograms are images of 96 bands x 102 frames. An epoch
takes one piece of each training clip, drawn anew (the public code draws once, for all epochs); a clip is what its pieces say on
average.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from crossmodal.data.arrays import Chosen
from crossmodal.data.derived import New, derived
from crossmodal.data.readers.audio import log_mel, read_wav
from crossmodal.data.readers.damage import explained
from crossmodal.errors import UserError
from crossmodal.files import digest, read_json
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

RATE = 22050  # samples per second, of which a piece has as many
SPECTROGRAM = {"size": 1920, "window": 661, "hop": 220, "bands": 96}
FRAMES = 102  # 101 and an empty one, so that their number is even
UNIT = 100  # spectrograms are kept as whole numbers, in hundredths of a decibel
AT_ONCE = 64  # spectrograms that are made together
MIXED, LOUDEST = 0.75, 0.5  # share of samples that get a background, and its greatest part in them
PARTS = ("tr", "val", "eval")
FILE = _public.remote("audio/chunks/tr.csv", "audio/audio.zip", 24_000_000_000, "")


@register(
    "fsd50k",
    "log-mel spectrograms of sounds (1 x 96 x 102), 200 labels; 37,000 train, 10,000 test clips (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=(FILE,),
)
def fsd50k(options: Options) -> RawTask:
    """A label that is there weighs 10 times in the loss, as in the public code.

    `--augment background` mixes in noise from audio/noise_22050, in decibels as the public code does it. Spectrograms to predict
    from are those of `log_mel`, less their mean, in hundredths of a decibel.
    """
    folder = options.data_dir / "audio"
    names = _labels(folder / "chunks" / "lbl_map.json")
    wavs = _wavs(folder)
    lists = {part: _pieces(folder / "chunks" / f"{part}.csv", names, wavs) for part in PARTS}
    noises = _noise(folder / "noise_22050")
    train, validation, test = (
        (_spectrograms(path := folder / "chunks" / f"{part}.csv", pieces, digest(path)), y, clips)
        for part, (pieces, y, clips) in lists.items()
    )
    noise = _spectrograms(folder / "noise_22050" / "noise.csv", noises, "", whole=False)
    spectrograms, y, clips = train
    pieces = _of_clips(clips)
    first = np.array([one[0] for one in pieces])
    train = Chosen(spectrograms, first), y[first], clips[first]
    metrics = tuple(f"{metric}_of_groups" for metric in ("mean_average_precision", "auroc"))
    notes = ["groups are clips; an epoch takes one piece of each training clip."]
    if options.protocol == "released":
        validation = test
        metrics = ("mean_average_precision_of_group_logits", *metrics)
        notes += [
            "released: the test clips validate; the validation clips are not used.",
            "released: the logits of a clip's pieces are averaged, not their probabilities.",
        ]
    return RawTask(
        kind="multilabel",
        **_public.parts(train=train, val=validation, test=test),
        class_names=names,
        origin=str(folder),
        notes=tuple(notes),
        loss="bce_with_logits_10",
        metrics=metrics,
        normalize_x=((0.0, float(UNIT)),),
        vary=AnyPiece(spectrograms, pieces),
        augmentations={"background": Background(noise)},
    )


class AnyPiece:
    """A variation: one of the pieces of a clip in the place of its first one."""

    def __init__(self, spectrograms: np.ndarray, pieces: list[np.ndarray]) -> None:
        self.spectrograms, self.pieces = spectrograms, pieces  # int16 (n, 1, 96, 102); rows of each clip

    def __call__(self, sample: np.ndarray, clip: int, generator: np.random.Generator) -> np.ndarray:
        return self.spectrograms[generator.choice(self.pieces[clip])]


class Background:
    """An augmentation: noise in the background of three samples of four."""

    def __init__(self, spectrograms: np.ndarray) -> None:
        self.spectrograms = spectrograms  # int16 (n, 1, 96, 102)

    def __call__(self, sample: Tensor, generator: np.random.Generator) -> Tensor:
        if generator.random() >= MIXED:
            return sample
        noise = torch.from_numpy(self.spectrograms[generator.integers(len(self.spectrograms))] / np.float32(UNIT))
        part = float(generator.uniform(0, LOUDEST))
        return (1 - part) * sample + part * noise


def _labels(path: Path) -> tuple[str, ...]:
    """Names of the labels, in the order of their numbers."""
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    found = read_json(path)
    if sorted(map(str, found.values())) != sorted(map(str, range(len(found)))) or len(found) < 2:
        raise UserError(f"{path}: expected every label with a number of its own, from 0 on")
    return tuple(sorted(found, key=lambda name: int(found[name])))


def _wavs(folder: Path) -> dict[str, Path]:
    """The WAV files below a folder but for the noise, by name: the lists have paths of the machine on which they were made."""
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "noise_22050")
        for name in files:
            if name.endswith(".wav"):
                if name in found:
                    raise UserError(f"{place}: {name} lies in {found[name].parent} too; names of pieces are unique")
                found[name] = Path(place, name)
    return found


def _pieces(path: Path, names: tuple[str, ...], wavs: dict[str, Path]) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Files, labels uint8 (n, K) and names of clips (n,) of the pieces in a list."""
    number = {name: index for index, name in enumerate(names)}
    chosen, rows, clips = [], [], []
    with explained(path, "a CSV file in UTF-8"), open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = {"files", "labels", "ext"} - set(reader.fieldnames or ())
        if lacking:
            raise UserError(f"{path}: lacks the columns {', '.join(sorted(lacking))}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row.values() or None in row:
                raise UserError(f"{where}: expected {len(reader.fieldnames or ())} columns")
            name = row["files"].replace("\\", "/").rpartition("/")[2]
            if name not in wavs:
                raise UserError(f"{where}: no file {name} below {path.parent.parent}")
            unknown = [label for label in row["labels"].split(",") if label not in number]
            if unknown:
                raise UserError(f"{where}: the label {unknown[0]!r} is not in lbl_map.json")
            chosen.append(wavs[name])
            rows.append([number[label] for label in row["labels"].split(",")])
            clips.append(row["ext"])
    if not chosen:
        raise UserError(f"{path}: no pieces")
    y = np.zeros((len(rows), len(names)), np.uint8)
    for sample, labels in enumerate(rows):
        y[sample, labels] = 1
    for pieces in _of_clips(np.array(clips)):
        if (y[pieces] != y[pieces[0]]).any():
            raise UserError(f"{path}: the pieces of clip {clips[pieces[0]]} differ in their labels")
    return chosen, y, np.array(clips)


def _of_clips(clips: np.ndarray) -> list[np.ndarray]:
    """The rows of each clip."""
    order = np.argsort(clips, kind="stable")
    return np.split(order, np.flatnonzero(clips[order][1:] != clips[order][:-1]) + 1)


def _noise(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise UserError(f"{folder}: no WAV files; the noise for --augment background is a part of the archive")
    return paths


def _spectrograms(path: Path, wavs: list[Path], listed: str, *, whole: bool = True) -> np.ndarray:
    """Log-mel spectrograms less their mean, and an empty frame, int16 (n, 1, 96, 102), mapped; made once.

    Args:
        path: of the list; they are kept beside it.
        wavs: files of a second each; or, unless `whole`, of any number of seconds, of which each is one.
        listed: hash of the list of the files.
    """

    def seconds(wav: Path) -> np.ndarray:
        samples = read_wav(wav, RATE)
        if whole and len(samples) != RATE:
            raise UserError(f"{wav}: expected {RATE} samples, a second, got {len(samples)}")
        short = -len(samples) % RATE if len(samples) < RATE else 0
        samples = np.pad(samples, (0, short), "wrap")
        return samples[: len(samples) // RATE * RATE].reshape(-1, RATE)

    def make(new: New) -> None:
        counts = [1] * len(wavs) if whole else [len(seconds(wav)) for wav in wavs]
        out, done = new((sum(counts), 1, SPECTROGRAM["bands"], FRAMES), np.int16), 0
        for first in tqdm(range(0, len(wavs), AT_ONCE), desc=f"spectrograms of {path.stem}", unit_scale=AT_ONCE):
            samples = np.concatenate([seconds(wav) for wav in wavs[first : first + AT_ONCE]])
            levels = log_mel(torch.from_numpy(samples), RATE, **SPECTROGRAM)
            levels = levels - levels.mean((1, 2), keepdim=True)
            out[done : done + len(levels), 0, :, :-1] = (UNIT * levels).round().numpy()
            done += len(levels)

    sizes = json.dumps([(wav.name, wav.stat().st_size) for wav in wavs])
    return derived(
        path.with_suffix(".log_mel.npy"),
        {"list": listed, "files": sizes, "spectrogram": SPECTROGRAM, "version": 1},
        make,
    )
