"""PDEBench's equations (Takamoto et al., NeurIPS 2022) as tasks: its public files, or solutions of our own in the same layout.

What is predicted from what is the protocol's:

    single     one later frame from the first; one target time for all parts. Of `darcy` the pressure from the permeability.
    rollout    the later frames from the first ten (of diffusion_reaction_1d five), one after the other, as PDEBench's FNO and U-Net
               are evaluated; learned from are windows of so many frames and the frame after them
    markov     like rollout, from the first frame alone
    step       each frame from the one before it
    released   as single, with what the public code of ORCA and PaRe does otherwise, which the task's description names

The test part is the tenth that PDEBench takes: the first of the samples where they are in one data set, the last where each has a
group. Validation is the tenth next to it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from crossmodal import cache, pde
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.download import Remote
from crossmodal.data.readers.hdf5 import opened
from crossmodal.data.readers.pdebench import Solutions, read_arrays, read_groups
from crossmodal.errors import UserError
from crossmodal.files import alone
from crossmodal.pde.base import SolvedEquation
from crossmodal.pde.files import Settings, generate
from crossmodal.tasks.base import Options, RawTask, register

PROTOCOLS = {  # the usual one first; what notes say of each
    "single": "",
    "rollout": ", one after the other; learned from is each frame with those before it",
    "markov": ", one after the other; learned from is each frame with the one before it",
    "step": ", and so on from each frame to the next",
    "released": "",
}
SEED = 0  # of what is generated here
LOADED_VALUES = 2**25  # 128 MiB: what is smaller is read at once
FEWEST = 10  # samples, of which one tests and one validates
METRICS = (
    "nrmse",
    "field_rmse",
    "max_error",
    "boundary_rmse",
    "conserved_error",
    "fourier_low",
    "fourier_mid",
    "fourier_high",
)


def _file(path: str, number: int, md5: str, size: float) -> Remote:
    """A file of the archive DaRUS (doi:10.18419/DARUS-2986), where PDEBench's own download program puts it; its bytes are about
    those of its arrays."""
    return Remote(path, f"https://darus.uni-stuttgart.de/api/access/datafile/{number}", int(size), f"md5:{md5}")


@dataclass(frozen=True)
class Entry:
    """How an equation becomes a task.

    Attributes:
        file: the public one.
        channels: names of the channels, as the equation writes them.
        keys: data sets of the channels; empty where each sample has a group.
        frames: every n-th is kept; this n.
        points, rollout_points: likewise along each axis of the published grid, as ORCA and PaRe, and as PDEBench take them.
        target: of `single`: index among the frames kept; None: the last.
        released: index of the frame that the released code tests with, where it is another.
        known: frames that a roll-out starts from.
        until: frames of a trajectory that a roll-out is learned from (None: all).
        loss: what ORCA minimises: the nRMSE, or for two tasks the RMSE.
        samples, resolution: of the small set that is generated where there is no file.
    """

    file: Remote
    samples: int
    resolution: int
    channels: tuple[str, ...] = ("u",)
    keys: tuple[str, ...] = ("tensor",)
    frames: int = 1
    points: int = 1
    rollout_points: int = 1
    target: int | None = None
    released: int | None = None
    known: int = 10
    until: int | None = None
    loss: str = "nrmse"


ENTRIES = {
    "advection": Entry(
        _file("1D/Advection/Train/1D_Advection_Sols_beta0.4.hdf5", 255674, "d595bbfd2c659df995a93cd40d6ea568", 8.23e9),
        samples=500,
        resolution=64,
        frames=5,
        points=4,
        rollout_points=4,
    ),
    "burgers": Entry(
        _file("1D/Burgers/Train/1D_Burgers_Sols_Nu1.0.hdf5", 281365, "9021eba35332d127306f11ef84c1a60f", 8.23e9),
        samples=500,
        resolution=64,
        frames=5,
        rollout_points=4,
        loss="rmse",
    ),
    "diffusion_reaction_1d": Entry(
        _file(
            "1D/ReactionDiffusion/Train/ReacDiff_Nu0.5_Rho1.0.hdf5", 133177, "69a429239778d529cd419ed5888ea835", 4.14e9
        ),
        samples=500,
        resolution=64,
        rollout_points=4,
        target=29,
        released=99,
        known=5,
        until=30,
    ),
    "diffusion_sorption": Entry(
        _file("1D/diffusion-sorption/1D_diff-sorp_NA_NA.h5", 133020, "9d466d1213065619d087319e16d9a938", 4.14e9),
        samples=500,
        resolution=64,
        keys=(),
        released=99,
    ),
    "navier_stokes_1d": Entry(
        _file(
            "1D/CFD/Train/1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train.hdf5",
            164668,
            "45655bd77d006ab539c52b7fbcf099b9",
            12.4e9,
        ),
        samples=250,
        resolution=64,
        channels=("density", "velocity", "pressure"),
        keys=("density", "Vx", "pressure"),
        frames=5,
        rollout_points=8,
        loss="rmse",
    ),
    "darcy": Entry(
        _file("2D/DarcyFlow/2D_DarcyFlow_beta0.1_Train.hdf5", 133218, "294f9a03a4aa16b0e386469ca8b471be", 1.31e9),
        samples=500,
        resolution=32,
        points=2,
    ),
    "shallow_water": Entry(
        _file("2D/shallow-water/2D_rdb_NA_NA.h5", 133021, "75d838c47aa410694bdc912ea7f22282", 6_626_098_972),
        samples=200,
        resolution=32,
        channels=("depth",),
        keys=(),
        released=99,
    ),
    "diffusion_reaction_2d": Entry(
        _file("2D/diffusion-reaction/2D_diff-react_NA_NA.h5", 133017, "b8d0b86064193195ddc30c33be5dc949", 13.2e9),
        samples=200,
        resolution=32,
        channels=("u", "v"),
        keys=(),
        released=99,
    ),
}


class Windows:
    """Successive frames of solutions along the channels, as rows of an array `(samples * starts, count * channels, *grid)`.

    Args:
        solutions: of an equation.
        samples: which of them.
        starts: frames at which a window begins, of those that are kept.
        count: frames of a window.
        every: of the file's frames every n-th is kept; this n.
    """

    def __init__(self, solutions: Solutions, samples: range, starts: range, count: int, every: int) -> None:
        self.solutions, self.samples, self.starts, self.count, self.every = solutions, samples, starts, count, every
        _, _, channels, *grid = solutions.shape
        self.shape = (len(samples) * len(starts), count * channels, *grid)
        self.dtype, self.ndim = solutions.dtype, 2 + len(grid)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place) -> np.ndarray:
        if isinstance(place, tuple):  # one value
            return self[place[0] : place[0] + 1][(0, *place[1:])]
        sample, start = np.divmod(np.arange(len(self))[place], len(self.starts))
        if len(self.starts) == 1:
            found = self._read(sample, self.starts[0], self.count)
        else:
            found = np.concatenate([self._windows(one, start[sample == one]) for one in np.unique(sample)])
        return found.reshape(len(found), *self.shape[1:])

    def _windows(self, sample: int, start: np.ndarray) -> np.ndarray:
        """Windows of one sample, `(starts, count, channels, *grid)`; those that lie close are cut from one reading."""
        sample, start = np.array([sample]), start + self.starts[0]
        span = int(start[-1] - start[0]) + self.count
        if span > len(start) * self.count:
            return np.concatenate([self._read(sample, first, self.count) for first in start])
        (frames,) = self._read(sample, start[0], span)
        return np.stack([frames[first : first + self.count] for first in start - start[0]])

    def _read(self, samples: np.ndarray, first: int, count: int) -> np.ndarray:
        frames = slice(int(first) * self.every, int(first + count - 1) * self.every + 1, self.every)
        return self.solutions.read(samples + self.samples.start, frames)


Frames = tuple[range, int]  # where windows begin, and how long they are


def plan(entry: Entry, protocol: str, frames: int) -> tuple[tuple[Frames, Frames], tuple[Frames, Frames]]:
    """Inputs and targets of what is learned from, and of what is validated and tested, of so many frames."""
    if protocol in ("single", "released"):
        target = frames - 1 if entry.target is None else entry.target
        pair = (range(1), 1), (range(target, target + 1), 1)
        return pair, pair
    known = entry.known if protocol == "rollout" else 1
    learned, all_steps = (
        ((range(end - known), known), (range(known, end), 1)) for end in (entry.until or frames, frames)
    )
    return learned, all_steps if protocol == "step" else ((range(1), known), (range(known, known + 1), frames - known))


def load(name: str, options: Options) -> RawTask:
    """The task of an equation.

    Raises:
        UserError: no file, or one that is not as PDEBench's; or the small set cannot be generated.
    """
    entry, equation, protocol = ENTRIES[name], pde.get(name), options.protocol
    path = small_set(name) if options.data_dir is None else find(name, options.data_dir)
    points = entry.points if protocol in ("single", "released") else entry.rollout_points
    solutions, targets, positions, notes = read(name, path, points)
    if options.data_dir is None:
        notes.insert(
            0,
            f"data: {len(solutions)} samples at a resolution of {entry.resolution}, generated here (seed {SEED}); --data_dir takes "
            f"a folder with PDEBench's {Path(entry.file.path).name}, or with what generate.py wrote as {name}.hdf5.",
        )
    times = equation.times[:: entry.frames]
    frames = max(len(times), 1)
    learned, asked = plan(entry, protocol, frames)
    parts = split(len(solutions), not entry.keys, protocol == "released", str(path))
    arrays: dict[str, ArrayLike] = {}
    for part, samples in parts.items():
        for key, of, (starts, count) in zip(
            "xy", (solutions, targets), learned if part == "train" else asked, strict=True
        ):
            windows = Windows(of, samples, starts, count, entry.frames)
            whole = protocol == "released" or math.prod(windows.shape) <= LOADED_VALUES
            arrays[f"{key}_{part}"] = windows[:] if whole else windows
        if len(learned[0][0]) > 1:  # a trajectory is a group
            arrays[f"group_{part}"] = np.repeat(np.asarray(samples), len(starts))
    (_, known), (after, count) = asked
    known_times, asked_times = times[:known], times[after[0] : after[0] + count]
    if len(times):
        notes.append(f"{protocol}: {_told(known_times)} in, {_told(asked_times)} out{PROTOCOLS[protocol]}.")
    if entry.until and protocol in ("rollout", "markov", "step"):
        notes.append(f"learned from are the frames up to t = {times[entry.until - 1]:g} alone, as in PDEBench.")
    task = RawTask(
        kind="dense",
        **arrays,
        origin=str(path),
        notes=tuple(notes),
        loss=entry.loss,
        metrics=METRICS,
        steps=count if protocol in ("rollout", "markov") else 0,
        equation=SolvedEquation(
            name,
            {key: value for key, value in equation.facts.items() if isinstance(value, float)},
            domain=equation.axes,
            points=positions,
            inputs=entry.channels if len(times) else ("a",),
            outputs=entry.channels,
            known=tuple(known_times.tolist()),
            asked=tuple(asked_times.tolist()),
        ),
    )
    return released(task, entry, solutions, parts["test"], times) if protocol == "released" else task


def _told(times: np.ndarray) -> str:
    if len(times) == 1:
        return f"the frame at t = {times[0]:g}"
    return f"{len(times)} frames, t = {times[0]:g} to {times[-1]:g},"


def released(task: RawTask, entry: Entry, solutions: Solutions, test: range, times: np.ndarray) -> RawTask:
    """What the public code of ORCA and PaRe does otherwise than `single`; each deviation is a note."""
    notes = [
        "released: validation is the test part, which therefore chooses the epoch.",
        "released: nothing is scaled.",
    ]
    x, y = ({part: getattr(task, f"{key}_{part}") for part in ("train", "test")} for key in "xy")
    equation = task.equation
    if entry.released is not None:
        y["test"] = Windows(solutions, test, range(entry.released, entry.released + 1), 1, entry.frames)[:]
        then, now = task.equation.asked[0], float(times[entry.released])
        notes.append(f"released: learned from are targets at t = {then:g}, tested is on targets at t = {now:g}.")
        equation = replace(equation, asked=(now,))
    if entry.channels == ("u", "v"):
        x, y = {part: of[:, :1] for part, of in x.items()}, {part: of[:, 1:] for part, of in y.items()}
        notes.append(
            "released: v at the end is predicted from u at the start, without v at the start, which decides about it."
        )
        equation = replace(equation, inputs=("u",), outputs=("v",))
    if len(entry.channels) == 3:
        x, y = ({part: _joined(of) for part, of in values.items()} for values in (x, y))
        mean, deviation = x["train"].mean(0), x["train"].std(0, ddof=1) + 1e-5
        x, y = ({part: (of - mean) / deviation for part, of in values.items()} for values in (x, y))
        notes[1] = (
            "released: inputs and targets alike are standardised per point by the first frames of the training part, and errors "
            "are in these units (in physical ones with --protocol single)."
        )
        notes.append("released: density, pressure and velocity are laid end to end as one series.")
        equation = None
    return replace(
        task,
        x_train=x["train"],
        y_train=y["train"],
        x_val=x["test"],
        y_val=y["test"],
        x_test=x["test"],
        y_test=y["test"],
        notes=(*task.notes, *notes),
        loss={"nrmse": "relative_l2"}.get(entry.loss, entry.loss),
        metrics=("relative_l2", "rmse"),
        normalize_x="none",
        normalize_y="none",
        equation=equation,
    )


def _joined(fields: np.ndarray) -> np.ndarray:
    """Density, velocity and pressure `(n, 3, N)` as one series of density, pressure and velocity, `(n, 1, 3 N)`, float64."""
    return fields[:, [0, 2, 1]].reshape(len(fields), 1, -1).astype(np.float64)


def split(samples: int, grouped: bool, joint: bool, origin: str) -> dict[str, range]:
    """Which samples belong to which part.

    Args:
        grouped: each sample has a group in the file.
        joint: validation is the test part.

    Raises:
        UserError: too few samples.
    """
    if samples < FEWEST:
        raise UserError(
            f"{origin}: holds {samples} samples, expected at least {FEWEST}: a tenth tests, and one validates"
        )
    tenth = samples // 10
    cuts = [0, tenth, tenth if joint else 2 * tenth, samples]
    if grouped:
        cuts = [samples - cut for cut in cuts]
    test, validation, train = (range(min(ends), max(ends)) for ends in pairwise(cuts))
    return {"train": train, "val": test if joint else validation, "test": test}


def find(name: str, data_dir: Path) -> Path:
    """The file of an equation: PDEBench's, where its download program puts it or in the folder itself, or a generated one.

    Raises:
        UserError: there is none; the message says what was looked for, and where to get it.
    """
    file = ENTRIES[name].file
    published = data_dir / file.path
    for stem in (published.with_suffix(""), data_dir / published.stem, data_dir / name):
        for suffix in (".hdf5", ".h5"):
            if (path := stem.with_name(stem.name + suffix)).is_file():
                return path
    raise UserError(
        f"data_dir: neither {published.name} nor {name}.hdf5 is in {data_dir} or {published.parent}; train.py --download {name} "
        f"--data_dir {data_dir} fetches the first, generate.py {name} --samples N -o {data_dir / name}.hdf5 makes the second"
    )


def small_set(name: str) -> Path:
    """A small set, in the cache folder; generated when it is first asked for, by one process while others wait.

    Raises:
        UserError: h5py is not installed, or the folder cannot be written.
    """
    entry = ENTRIES[name]
    settings = Settings(name, entry.samples, entry.resolution, SEED)
    defined = json.dumps(asdict(settings) | settings.solver.facts, sort_keys=True)
    path = folder() / f"{name}-{hashlib.sha256(defined.encode()).hexdigest()[:12]}.hdf5"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            if not path.exists():
                print(
                    f"{name}: without --data_dir, {entry.samples} samples at a resolution of {entry.resolution} are generated, "
                    f"once: {path}"
                )
                generate(settings, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}); set PARE_CACHE_DIR to a folder that can") from error
    return path


def folder() -> Path:
    """Where small sets are kept."""
    return cache.folder() / "pde"


def read(name: str, path: Path, points: int) -> tuple[Solutions, Solutions, tuple[np.ndarray, ...], list[str]]:
    """Inputs and targets in a file, of all frames; positions along each axis; notes.

    Args:
        points: every n-th of the published grid is kept; this n. Of a coarser grid as many are kept, as far as it has them.

    Raises:
        UserError: the file is not as PDEBench's, or says that it holds another equation's solutions.
    """
    entry, equation = ENTRIES[name], pde.get(name)
    frames, grid = len(equation.times), (None,) * len(equation.axes)
    if not entry.keys:
        arrays = [read_groups(path, (frames, *grid, len(entry.channels)))]
        sizes = arrays[0].shape[2:-1]
    else:
        arrays = read_arrays(path, entry.keys, (frames or 1, *grid))
        sizes = arrays[0].shape[2:]
    size = sizes[0]
    if set(sizes) != {size}:
        raise UserError(f"{path}: expected as many points along both axes, got {' x '.join(map(str, sizes))}")
    every = max(1, size * points // equation.resolution)
    solutions = targets = Solutions(arrays, every)
    if not frames:
        solutions = Solutions(read_arrays(path, ("nu",), grid), every, timed=False)
        if solutions.shape[0] != targets.shape[0] or solutions.shape[3:] != targets.shape[3:]:
            raise UserError(f"{path}: nu and {entry.keys[0]} differ in samples or grid")
    with opened(path) as file:  # what generate.py says of its own
        held, transient = (str(file.attrs.get(key, "")) for key in ("name", "transient"))
    if held in pde.EQUATIONS and held != name:
        raise UserError(f"{path}: expected solutions of {name}, got ones of {held}, as the file says")
    kept = f"every {_nth(every)} of {size} points" if every > 1 else f"all {size} points"
    notes = [
        f"grid: {kept} along each axis are kept"
        + (f", and every {_nth(entry.frames)} frame." if entry.frames > 1 else ".")
    ]
    if transient == "True":
        notes.append("the state is that at t = 1.75, as in PDEBench's file, not the steady one.")
    return solutions, targets, tuple(axis[::every] for axis in equation.coordinates(size)), notes


def _nth(number: int) -> str:
    return {2: "second"}.get(number, f"{number}th")


def _register(name: str) -> None:
    protocols = tuple(PROTOCOLS) if len(pde.get(name).times) else ("single",)

    @register(
        name,
        f"{pde.get(name).description} (PDEBench, or generated)",
        protocols=protocols,
        files=(ENTRIES[name].file,),
        needs_files=False,
    )
    def loader(options: Options) -> RawTask:
        return load(name, options)


for _name in ENTRIES:
    _register(_name)
