"""Files of generated solutions: the bytes, whatever computed them, and PDEBench's layout as its tools read it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import psutil
import pytest
from scipy.io import loadmat

from crossmodal import parsers
from crossmodal.cli import generate
from crossmodal.pde import EQUATIONS, get
from crossmodal.pde import files as engine
from tests.crossmodal import runs


def call(*words: object) -> int:
    return generate([str(word) for word in words])


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few frames and small batches: what is tested here is the files."""
    for equation in EQUATIONS.values():
        monkeypatch.setattr(type(equation), "batch", 2)
        if len(equation.times):
            monkeypatch.setattr(type(equation), "times", equation.times[:3])


def test_help_names_every_equation():
    assert set(parsers.EQUATIONS) == set(EQUATIONS)


FRAMES = {name: len(equation.times) for name, equation in EQUATIONS.items()}  # before any test shortens them


def test_frame_counts_are_pdebenchs():
    assert {"advection": 201, "burgers": 201, "darcy": 0, "darcy_flow": 0} | dict.fromkeys(
        ("diffusion_reaction_1d", "diffusion_reaction_2d", "diffusion_sorption", "navier_stokes_1d", "shallow_water"),
        101,
    ) == FRAMES


LAYOUT = {  # shapes for 3 samples, 3 frames, 16 cells
    "advection": {"tensor": (3, 3, 16), "x-coordinate": (16,), "t-coordinate": (4,)},
    "burgers": {"tensor": (3, 3, 16), "x-coordinate": (16,), "t-coordinate": (4,)},
    "diffusion_reaction_1d": {"tensor": (3, 3, 16), "x-coordinate": (16,), "t-coordinate": (4,)},
    "navier_stokes_1d": dict.fromkeys(("density", "pressure", "Vx"), (3, 3, 16))
    | {"x-coordinate": (16,), "t-coordinate": (4,)},
    "darcy": {"tensor": (3, 1, 16, 16), "nu": (3, 16, 16), "x-coordinate": (16,), "y-coordinate": (16,)},
    "diffusion_sorption": {"0002/data": (3, 16, 1), "0002/grid/x": (16,), "0002/grid/t": (3,)},
    "shallow_water": {"0002/data": (3, 16, 16, 1), "0002/grid/x": (16,), "0002/grid/y": (16,), "0002/grid/t": (3,)},
    "diffusion_reaction_2d": {
        "0002/data": (3, 16, 16, 2),
        "0002/grid/x": (16,),
        "0002/grid/y": (16,),
        "0002/grid/t": (3,),
    },
}


@pytest.mark.parametrize("name", LAYOUT)
def test_layout_is_pdebenchs(name, tmp_path):
    path = tmp_path / "out.h5"
    assert call(name, "--samples", 3, "--resolution", 16, "--jobs", 1, "-o", path) == 0
    with h5py.File(path) as file:
        found = {}
        file.visititems(lambda key, item: found.update({key: item}) if isinstance(item, h5py.Dataset) else None)
        assert {key: item.shape for key, item in found.items() if not key.startswith(("0000", "0001"))} == LAYOUT[name]
        assert all(item.dtype == np.float32 for item in found.values())
        assert file.attrs["seed"] == 0
        assert "equation" in file.attrs
        low, high = get(name).axes[0]
        x = file["x-coordinate" if "x-coordinate" in file else "0000/grid/x"][:]
        np.testing.assert_allclose(x[[0, -1]], [low + (high - low) / 32, high - (high - low) / 32], rtol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_darcy_flow_is_the_matlab_file(tmp_path):
    path = tmp_path / "darcy.mat"
    assert call("darcy_flow", "--samples", 3, "--resolution", 17, "--jobs", 1, "-o", path) == 0
    content = loadmat(path)
    assert content["coeff"].shape == content["sol"].shape == (3, 17, 17)
    assert content["coeff"].dtype == np.float64


@pytest.mark.parametrize("name", ["burgers", "diffusion_sorption", "darcy_flow"])
def test_the_same_bytes_from_processes_parts_and_after_a_stop(name, tmp_path, monkeypatch):
    suffix = ".mat" if name == "darcy_flow" else ".h5"
    options = ("--samples", 5, "--resolution", 16, "--seed", 7)
    whole, parts, stopped = (tmp_path / f"{kind}{suffix}" for kind in ("whole", "parts", "stopped"))
    assert call(name, *options, "--jobs", 1, "-o", whole) == 0
    for part in ("3/3", "1/3", "2/3"):
        assert not parts.exists()
        assert call(name, *options, "--jobs", 1, "--part", part, "-o", parts) == 0
    solve, calls = engine.solve_piece, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*arguments)

    monkeypatch.setattr(engine, "solve_piece", failing)
    assert call(name, *options, "--jobs", 1, "-o", stopped) == 130
    assert call(name, *options, "--jobs", 1, "-o", stopped) == 0
    assert len(calls) == 4  # one before the stop, the one that it hit again, and the last: none twice
    assert whole.read_bytes() == parts.read_bytes() == stopped.read_bytes()


@pytest.mark.slow
def test_the_same_bytes_from_two_processes(tmp_path, monkeypatch):
    monkeypatch.undo()
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    options = ("diffusion_sorption", "--samples", 101, "--resolution", 16)
    assert call(*options, "--jobs", 1, "-o", one) == 0
    assert call(*options, "--jobs", 2, "-o", two) == 0
    assert one.read_bytes() == two.read_bytes()


def test_transient_is_another_field_of_the_same_medium(tmp_path):
    steady, transient = tmp_path / "a.h5", tmp_path / "b.h5"
    assert call("darcy", "--samples", 2, "--resolution", 16, "--jobs", 1, "-o", steady) == 0
    assert call("darcy", "--samples", 2, "--resolution", 16, "--jobs", 1, "--transient", "-o", transient) == 0
    with h5py.File(steady) as a, h5py.File(transient) as b:
        np.testing.assert_array_equal(a["nu"][:], b["nu"][:])
        assert np.abs(a["tensor"][:] - b["tensor"][:]).max() > 1e-4
        assert b.attrs["transient"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("burger",), "unknown name 'burger', did you mean 'burgers'?"),
        (("burgers", "--samples", 0), "samples: expected a whole number >= 1, got 0"),
        (("burgers", "--seed", 2**63), "seed: expected a whole number >= 0, got 9223372036854775808"),
        (("burgers", "--resolution", 4), "resolution: expected a whole number >= 16, got 4"),
        (("burgers", "--transient"), "only darcy has a transient form"),
        (("burgers", "--jobs", 0), "jobs: expected a positive number, got 0"),
        (("burgers", "--part", "3/2"), "part: expected I/N with I from 1 to N"),
        (("burgers", "--part", "one"), "part: expected I/N"),
        (("darcy_flow",), "expected a name that ends in .mat"),
    ],
)
def test_mistakes_are_named(words, message, tmp_path, capsys):
    assert call(*words, "-o", tmp_path / "out.h5") != 0
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path, capsys):
    path = tmp_path / "out.h5"
    options = ("advection", "--samples", 4, "--resolution", 16, "--jobs", 1, "-o", path)
    path.write_text("mine")
    assert call(*options) != 0
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"
    path.unlink()
    assert call(*options, "--part", "1/2") == 0
    assert call(*options, "--seed", 1) != 0
    assert "holds pieces of another file" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out.h5.pieces")
    (tmp_path / "out.h5.pieces").write_text("mine")
    assert call(*options) == 2
    assert "out.h5.pieces, which is a file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["burgers", "darcy_flow"])
def test_a_damaged_piece_is_named_and_computed_again(name, tmp_path, capsys, monkeypatch):
    path = tmp_path / ("out.mat" if name == "darcy_flow" else "out.h5")
    options = (name, "--samples", 4, "--resolution", 16, "--jobs", 1, "-o", path)
    assert call(*options, "--part", "1/2") == 0
    piece = tmp_path / f"{path.name}.pieces" / "000000.npz"
    piece.write_bytes(piece.read_bytes()[:-100])
    assert call(*options) == 2
    assert f"{piece} is damaged (" in capsys.readouterr().err
    assert not path.exists()
    piece.unlink()
    monkeypatch.setitem(engine.get(name).facts, "scheme", "a better one")
    assert call(*options) == 2
    assert "holds pieces of another file" in capsys.readouterr().err


def test_parts_that_end_at_the_same_moment(tmp_path, monkeypatch):
    path = tmp_path / "out.h5"

    def write(aside, settings, pieces):
        path.write_text("of the other part")
        shutil.rmtree(tmp_path / "out.h5.pieces")
        np.load(pieces[0])

    monkeypatch.setattr(engine, "write_hdf5", write)
    assert call("burgers", "--samples", 4, "--resolution", 16, "--jobs", 1, "-o", path) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["out.h5"]
    assert path.read_text() == "of the other part"


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["the parent", "a child"])
def test_no_process_stays_behind_one_that_is_killed(killed, tmp_path):
    command = [sys.executable, str(runs.ROOT / "python" / "generate.py"), "burgers", "--resolution", "16"]
    command += ["--samples", "100000", "--jobs", "2", "-o", str(tmp_path / "out.h5")]
    parent = psutil.Popen(command, env=runs.environment(), stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out.h5.pieces").glob("*.npz")):
        assert parent.poll() is None
        time.sleep(0.05)
    children = parent.children(recursive=True)
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    (parent if killed == "the parent" else workers[0]).kill()
    _, alive = psutil.wait_procs([parent, *children], timeout=60)
    assert not alive
    if killed == "a child":
        assert parent.returncode == 2
        assert "error: jobs: a process was killed" in parent.stderr.read()


def test_without_h5py_nothing_is_computed_in_vain(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert call("burgers", "-o", tmp_path / "out.h5") != 0
    assert "HDF5 files need h5py" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
