"""The site: built without a warning, from what is registered; each code block on it runs."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from crossmodal import methods, parsers, parsing, plans, tasks

pytest.importorskip("mkdocs")
ROOT = Path(__file__).resolve().parents[2]
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


PROGRAM = re.compile(
    r"^(?:\.venv/bin/)?python3? (?:python/(\w+)\.py|-m pytest|-m pare_kernels\.report|benchmarks/gpu\.py)"
)


def run_command(line: str, extras: set[str]) -> None:
    """A command of the site: done with one epoch on arrays of its own, or with one small sample; what would take minutes, install
    or build is held against what it names: settings, targets, extras."""
    words = shlex.split(line.partition("  #")[0])
    if words[0] == "make":
        named = {word for word in words[1:] if "=" not in word}
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
        assert named <= targets, line
        return
    if words[:2] == ["pip", "install"]:
        assert set(re.findall(r"\[(\w+)\]", line)) <= extras, line
        return
    assert PROGRAM.match(line), f"the site shows a command that no test knows: {line}"
    if words[1] == "-m" or words[1].startswith("benchmarks/"):
        assert importlib.util.find_spec(words[2]) if words[1] == "-m" else (ROOT / words[1]).is_file()
        return
    program, arguments = Path(words[1]).stem, words[2:]
    if program == "compare":
        known, rest = parsers.compare().parse_known_args(arguments)
        plan = ROOT / known.plan if known.plan else None
        assert plans.read(plan, known.tasks, known.methods, known.seeds, rest).methods
        return
    if "--download" in arguments:
        assert arguments[arguments.index("--download") + 1] in tasks.available(), line
        return
    if program == "train" and "--data" not in arguments:
        with pytest.raises(SystemExit) as stopped:
            parsing.parse([*arguments, "--print_config"])
        assert stopped.value.code in (0, None)
        return
    if program == "train":
        arguments += ["--epochs", "1"]
    if program == "generate":
        arguments[arguments.index("--samples") + 1] = "1"
        arguments += ["--resolution", "32"]
    done = subprocess.run(
        [sys.executable, ROOT / "python" / f"{program}.py", *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES | EVIDENCE if not page.startswith("examples/")]
)  # those have tests of their own
def test_code_blocks_run(hooks, extras, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    names: dict = {}
    for language, text in blocks(hooks.expand((PAGES | EVIDENCE)[page].read_text())):
        if language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "yaml":
            (tmp_path / "plan.yaml").write_text(text)
            assert plans.read(tmp_path / "plan.yaml", None, None, None, []).seeds
        elif re.match(r"(make|pip|python3?|\.venv)\b", text):
            for line in text.splitlines():
                run_command(line, extras)
        else:
            assert page == "how.md", f"a block that no test knows:\n{text}"  # formulas


def test_own_data_fit_one_screen():
    section = re.search(r"^## Train on your own data\n(.*?)^## ", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert 20 < len(section[1].splitlines()) <= 45


def test_pages_are_found_in_the_navigation():
    navigation = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M))
    assert {*PAGES} <= navigation <= {*PAGES, *EVIDENCE}
