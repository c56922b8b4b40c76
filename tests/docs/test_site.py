"""The site: built without a warning, from what is registered; each code block on it runs."""

from __future__ import annotations

import doctest
import importlib.util
import posixpath
import re
import runpy
import shlex
import subprocess
import sys
from unittest import mock

import pytest

import pare_kernels
from crossmodal import methods, tasks
from tests.crossmodal.runs import ROOT, environment

pytest.importorskip("mkdocs")
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))}
EVIDENCE = {f"evidence/{path.name}": path for path in sorted((ROOT / "benchmarks" / "evidence").glob("*.md"))}


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_is_built_without_warnings_and_has_all_that_is_registered(tmp_path):
    # Without `--quiet`, which hides warnings from `--strict` too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    built = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    on_methods, on_tasks = ((tmp_path / page / "index.html").read_text() for page in ("methods", "tasks"))
    assert not [name for name in methods.METHODS if f'<h2 id="{name}">' not in on_methods]
    assert not [name for name in tasks.available() if f"<code>{name}</code>" not in on_tasks]
    assert "--pare.noise_scale" in on_methods
    assert (tmp_path / "pictures" / "gradient.svg").stat().st_size > 5000
    assert "PatchReplaceResult" in (tmp_path / "api" / "pare_kernels" / "index.html").read_text()
    assert not [path for path in tmp_path.rglob("*.html") if "<!-- include" in path.read_text()]


@pytest.fixture(scope="module")
def extras():
    with mock.patch("setuptools.setup") as setup, mock.patch.dict("os.environ", PARE_KERNELS_NO_EXT="1"):
        runpy.run_path(str(ROOT / "setup.py"))
    return set(setup.call_args.kwargs["extras_require"])


def test_each_extra_is_explained(extras):
    rows = re.findall(r"^\| (`.*`) \| ", (DOCS / "install.md").read_text(), flags=re.M)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == extras - {"test", "docs", "release"}


def blocks(markdown: str) -> list[tuple[str, str]]:
    """Language and text of the code blocks, but for the examples of CONTRIBUTING, which a test of their own walks."""
    found = re.findall(r"(<!-- example: .*? -->\n)?^```(\w*)\n(.*?)^```$", markdown, flags=re.M | re.S)
    return [(language, text) for example, language, text in found if not example]


# Lines that take minutes as they stand, and what comes behind them here: fewer runs, steps and samples of the same.
FEWER = {
    "compare.py --task arrow_head": "--methods nft --seeds 0 --epochs 1 --model.layers 1 --model.image_size 28",
    "compare.py --tasks gunpoint,arrow_head": "--tasks gunpoint --seeds 0 --epochs 1 --model.layers 1",
    "compare.py --plan benchmarks/tables/table5.yaml": "--tasks italy_power_demand --seeds 0 --epochs 1 --model.layers 1",
    "compare.py --plan benchmarks/evidence/methods.yaml": "--tasks italy_power_demand --methods linear,nft --seeds 0 --steps 1",
    "compare.py --plan plan.yaml": "--tasks gunpoint --methods nft --seeds 0 --epochs 1 --model.layers 1",
    "generate.py burgers": "--samples 20 --resolution 16",
    "train.py --data mine.csv --table.target species --method pare": "--epochs 1",
    "train.py --task burgers --method fno": "--data_dir . --epochs 1",  # of the samples above
    "train.py --task burgers --method nft": "--data_dir . --epochs 1 --model.layers 1",
    "train.py --task osu_leaf": "--steps 1 --split.train_size 20 --split.test_limit 20 --model.layers 1",
    "pip install --no-build-isolation": "--dry-run --no-deps",
    "pip install --no-deps": "--dry-run",
}
ELSEWHERE = {  # and what cannot be done within a test of this suite
    "pip install pare-kernels": "nothing is published yet; release/try_fresh.py does it with the wheel",
    "pip install 'pare-kernels[train]'": "likewise",
    "make test": "the suite that this test belongs to",
    ".venv/bin/python -m pytest": "parts of it",
    "make hub": "compiles; tests/release/test_hub.py",
    "python3 benchmarks/gpu.py --rehearse": "tests/benchmarks/test_gpu.py",
    ".venv/bin/python python/train.py --download": "needs a network; test_download.py has a server of its own",
}


def add(line: str) -> str:
    return next((f"{line} {more}" for start, more in FEWER.items() if start in line), line)


def run_command(line: str) -> None:
    """A command of the site. What a target of the Makefile does once all is installed is its last line."""
    line = line.partition("  #")[0].strip()
    if any(line.startswith(start) for start in ELSEWHERE):
        return
    if line == "make train":
        make = [
            "make",
            "-n",
            "--no-print-directory",
            "train",
        ]  # make calls this suite, and a make within make names its folder
        line = subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    words = shlex.split(add(line).replace("PYTHON=python3", f"PYTHON={sys.executable}"))
    if words[0] == "pip":
        words[:1] = [sys.executable, "-m", "pip"]
    elif re.fullmatch(r"(\.venv/bin/)?python3?", words[0]):
        words[0] = sys.executable
    here = ROOT if words[0] == "make" or words[2] == "pip" else None  # else where what it writes may lie
    done = subprocess.run(words, cwd=here, env=environment(), check=False, capture_output=True, text=True)
    if words[:2] in (["make", "gpu-check"], ["make", "gpu"]):
        assert done.returncode == 2, done.stdout
        assert re.search(r"nothing to run: torch \S+ sees no CUDA device", done.stderr), done.stderr
        return
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES | EVIDENCE if not page.startswith("examples/")],  # those have tests of their own
)
def test_code_blocks_run(hooks, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("benchmarks", "python"):
        (tmp_path / name).symlink_to(ROOT / name)
    names: dict = {}
    for language, text in blocks(hooks.expand((PAGES | EVIDENCE)[page].read_text())):
        if language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "yaml":
            (tmp_path / "plan.yaml").write_text(text)
            run_command("python python/compare.py --plan plan.yaml")
        elif language == "text":
            assert page == "how.md"  # formulas
        else:
            for line in text.splitlines():
                run_command(line)


def test_what_is_cut_short_is_on_the_site(hooks):
    shown = [text for page in (PAGES | EVIDENCE).values() for _, text in blocks(hooks.expand(page.read_text()))]
    shown += ["compare.py --task arrow_head", "compare.py --plan plan.yaml"]  # of `make train`, and of YAML
    assert not [start for start in [*FEWER, *ELSEWHERE] if start not in "\n".join(shown)]


def test_the_example_in_the_docstring_runs():
    failed, attempted = doctest.testmod(pare_kernels)
    assert not failed
    assert attempted > 3


def test_own_data_fit_one_screen():
    section = re.search(r"^## Train on your own data\n(.*?)^## ", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert 20 < len(section[1].splitlines()) <= 45


def test_links_lead_to_files_of_the_site(hooks):
    files = {
        *PAGES,
        *(f"{folder}/{path.name}" for folder, pattern in hooks.FOLDERS.items() for path in ROOT.glob(pattern)),
    }
    files |= {f"pictures/{name}.svg" for name in hooks.pictures.PICTURES}
    for page, path in (PAGES | EVIDENCE).items():
        markdown = re.sub(r"```.*?```|`[^`]*`", "", hooks.expand(path.read_text()), flags=re.S)
        links = [link for link in re.findall(r"\]\(([^)#\s]+)", markdown) if not link.startswith(("https:", "data:"))]
        assert {posixpath.normpath(posixpath.join(posixpath.dirname(page), link)) for link in links} <= files, page


def test_pages_are_found_in_the_navigation():
    navigation = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M))
    assert {*PAGES} <= navigation <= {*PAGES, *EVIDENCE}
