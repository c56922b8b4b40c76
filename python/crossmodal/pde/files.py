"""Solutions in the thousands: pieces, computed side by side and kept one by one, and the file that is made of them.

A piece is a batch of samples in a file of its own, in the folder FILE.pieces. Whatever computed it, one process or a cluster, now
or before the machine went down, it holds the same bytes, and so does the file that is put together when all pieces are there.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy
from tqdm import tqdm

from crossmodal.errors import UserError
from crossmodal.files import read_json, replacing, write_json
from crossmodal.pde.base import Equation, get
from crossmodal.pde.darcy import TransientDarcy

LEAST_RESOLUTION = 16


@dataclass(frozen=True)
class Settings:
    """What defines a file, to the byte."""

    equation: str
    samples: int
    resolution: int
    seed: int
    transient: bool = False

    def __post_init__(self) -> None:
        get(self.equation)
        if self.transient and self.equation != "darcy":
            raise UserError(f"transient: only darcy has a transient form, not {self.equation}")
        for key, least in (("samples", 1), ("resolution", LEAST_RESOLUTION), ("seed", 0)):
            if not least <= getattr(self, key) < 2**63:  # which HDF5 can write
                raise UserError(f"{key}: expected a whole number >= {least}, got {getattr(self, key)}")

    @property
    def solver(self) -> Equation:
        return TransientDarcy() if self.transient else get(self.equation)

    @property
    def pieces(self) -> int:
        return -(-self.samples // self.solver.batch)


def solve_piece(settings: Settings, number: int, path: Path) -> int:
    """Computes a piece and writes it, whole or not at all; returns its number of samples."""
    first = number * settings.solver.batch
    last = min(first + settings.solver.batch, settings.samples)
    rngs = [np.random.default_rng([settings.seed, sample]) for sample in range(first, last)]
    arrays = settings.solver.solve(rngs, settings.resolution)
    precision = np.float64 if settings.solver.layout == "mat" else np.float32
    with replacing(path) as aside, open(aside, "wb") as file:
        np.savez(file, **{name: array.astype(precision) for name, array in arrays.items()})
    return last - first


def generate(settings: Settings, output: Path, *, jobs: int = 1, part: tuple[int, int] = (1, 1)) -> bool:
    """Computes what is missing, and puts the file together once all is there.

    Args:
        settings: what to compute.
        output: file to write; pieces lie beside it in OUTPUT.pieces until it is whole.
        jobs: processes at a time.
        part: (i, n): only every n-th piece, the i-th of them first; other calls compute the others in the same folder.

    Returns:
        Whether the file is there.

    Raises:
        UserError: the suffix is not that of the layout; h5py is not installed; the file is there already, or pieces of another
            one are; a piece is damaged; a process was killed.
    """
    suffixes = (".mat",) if settings.solver.layout == "mat" else (".hdf5", ".h5")
    if output.suffix not in suffixes:
        raise UserError(f"output: expected a name that ends in {' or '.join(suffixes)}, got {output}")
    if output.exists():
        raise UserError(f"output: {output} is there already; remove it or choose another name")
    if settings.solver.layout != "mat" and importlib.util.find_spec("h5py") is None:
        raise UserError(f"{output}: HDF5 files need h5py (pip install pare-kernels[hdf5])")
    folder = output.with_name(output.name + ".pieces")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output: pieces lie in the folder {folder}, which is a file; remove it or choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    record, defined = folder / "settings.json", asdict(settings) | {"facts": settings.solver.facts}
    if not record.exists():
        write_json(record, defined)
    elif (found := read_json(record)) != defined:
        raise UserError(
            f"output: {folder} holds pieces of another file ({json.dumps(found)}); remove the folder or choose another name"
        )
    paths = [folder / f"{number:06d}.npz" for number in range(settings.pieces)]
    mine = [number for number in range(part[0] - 1, settings.pieces, part[1]) if not paths[number].exists()]
    with tqdm(total=settings.samples, unit=" samples", desc=settings.equation) as bar:
        bar.update(settings.samples - min(settings.samples, len(mine) * settings.solver.batch))
        for count in _solved(settings, mine, paths, jobs):
            bar.update(count)
    missing = sum(not path.exists() for path in paths)
    if missing:
        print(f"{missing} of {settings.pieces} pieces are for other parts; the last part to end puts {output} together")
        return False
    write = write_mat if settings.solver.layout == "mat" else write_hdf5
    try:
        with replacing(output) as aside:
            write(aside, settings, paths)
    except FileNotFoundError:  # another part put the file together at the same moment, and removed the pieces
        if not output.exists():
            raise
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _solved(settings: Settings, numbers: list[int], paths: list[Path], jobs: int) -> Iterator[int]:
    """Computes pieces; yields the number of samples of each as it ends."""
    if jobs == 1 or len(numbers) < 2:
        for number in numbers:
            yield solve_piece(settings, number, paths[number])
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come: each has a core
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        waiting = [pool.submit(solve_piece, settings, number, paths[number]) for number in numbers]
        try:
            for done in as_completed(waiting):
                yield done.result()
        except BrokenProcessPool:
            raise UserError(
                "jobs: a process was killed, perhaps for want of memory; the same command with fewer goes on"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A process of the pool would wait for ever for a parent that was killed."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def load_piece(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a piece.

    Raises:
        UserError: it is damaged.
    """
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); remove it, and the same command computes it again") from None


def attributes(settings: Settings) -> dict[str, str | float | int]:
    """What a file says about itself."""
    from pare_kernels import __version__

    versions = f"pare_kernels {__version__}, numpy {np.__version__}, scipy {scipy.__version__}"
    return asdict(settings) | settings.solver.facts | {"name": settings.equation, "versions": versions}


def write_hdf5(path: Path, settings: Settings, pieces: list[Path]) -> None:
    """PDEBench's layouts.

    "arrays": a data set `(samples, ...)` for each array, `x-coordinate` (and `y-coordinate`), `t-coordinate` with one entry more
    than there are frames. "groups": for each sample `0000/data`, `(frames, points..., channels)`, and `grid/x`, `grid/t` beside it.
    """
    import h5py

    solver = settings.solver
    axes = dict(zip("xy", (axis.astype(np.float32) for axis in solver.coordinates(settings.resolution)), strict=False))
    times = solver.times.astype(np.float32)
    # Newer formats of HDF5 leave bytes of the heap that they do not use as they find them.
    with h5py.File(path, "w", libver="earliest") as file:
        file.attrs.update(attributes(settings))
        if solver.layout == "arrays":
            for name, values in axes.items():
                file[f"{name}-coordinate"] = values
            if len(times):
                file["t-coordinate"] = np.append(times, 2 * times[-1] - times[-2])
        first = 0
        for piece in pieces:
            for name, values in load_piece(piece).items():
                if solver.layout == "arrays":
                    if name not in file:
                        file.create_dataset(name, (settings.samples, *values.shape[1:]), values.dtype)
                    file[name][first : first + len(values)] = values
                else:
                    for sample, value in enumerate(values, first):
                        group = file.create_group(f"{sample:04d}")
                        group[name] = value
                        for axis, points in axes.items():
                            group[f"grid/{axis}"] = points
                        group["grid/t"] = times
            first += len(values)


def write_mat(path: Path, settings: Settings, pieces: list[Path]) -> None:
    """MATLAB's version 5, with the arrays under their names and the attributes as one text."""
    from scipy.io import savemat

    loaded = [load_piece(piece) for piece in pieces]
    arrays = {name: np.concatenate([piece[name] for piece in loaded]) for name in loaded[0]}
    with open(path, "wb") as file:
        savemat(file, arrays | {"made_of": json.dumps(attributes(settings))})
        file.seek(0)
        file.write(b"MATLAB 5.0 MAT-file".ljust(116))  # scipy writes the date here
