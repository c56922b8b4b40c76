"""What the site takes from the rest of the repository when it is built: parts of README, the registries, evidence, pictures.

In a page, `<!-- include: FILE -->` stands for all of FILE (of README: what it says before its first section),
`<!-- include: FILE # Section -->` for that section, its subsections one level up, `<!-- notebook: FILE -->` for a notebook with its
outputs, and `<!-- registry: NAME -->` for a registry.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python"), str(ROOT / "docs")]

import pictures  # noqa: E402

from crossmodal import cli, methods, parsing  # noqa: E402

FOLDERS = {
    "results": "benchmarks/results/*.png",
    "evidence": "benchmarks/evidence/*",
}  # of the site, and what comes into them
LINKS = {  # from files that are included to pages of the site
    "CONTRIBUTING.md": "contributing.md",
    "examples/operator.ipynb": "examples/operator.md",
    "benchmarks/results/nvidia-h200.md": "nvidia-h200.md",
    "../evidence/": "evidence/",
    "benchmarks/": "",
}


def outside_code(change, text: str) -> str:
    """`change` applied to all of a Markdown text but its code blocks."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def include(name: str, section: str | None) -> str:
    text = (ROOT / name).read_text()
    if section is None:
        if name != "README.md":
            return text
        return re.search(r"^# .*?\n(.*?)^## ", text, re.M | re.S).group(1)
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not found:
        raise ValueError(f"{name} has no section {section!r}")
    return outside_code(lambda part: re.sub(r"^#(#+ )", r"\1", part, flags=re.M), found.group(1))


def notebook(name: str) -> str:
    parts = []
    for one in json.loads((ROOT / name).read_text())["cells"]:
        text = "".join(one["source"])
        parts.append(text if one["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in one.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                parts.append(f'<img alt="" src="data:image/png;base64,{"".join(picture).strip()}">')
            elif output.get("name") == "stdout":
                parts.append(textwrap.indent("".join(output["text"]), "    "))
    return "\n\n".join(parts)


def cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("<", "&lt;")


def registry(name: str) -> str:
    if name != "methods":
        rows = [f"| `{one}` | {cell(what)} |" for one, what in cli.registries()[name].items()]
        return "\n".join(["| name | |", "| --- | --- |", *rows])
    lines = []
    for method in sorted(methods.METHODS.values(), key=lambda method: method.name):
        lines += [f"## `{method.name}` {{ #{method.name} }}", ""]
        lines += [f"{text}\n" for text in map(inspect.getdoc, (inspect.getmodule(type(method)), type(method)))]
        for reason in dict.fromkeys(method.unsuited.values()):
            kinds = " and ".join(what for what, because in method.unsuited.items() if because == reason)
            lines.append(f"Not for {kinds.replace('2d', 'grids')}: {reason}.\n")
        options = parsing.keys(method.Options, f"{method.name}.")
        if options:
            lines += ["| option | default | |", "| --- | --- | --- |"]
            lines += [f"| `--{key}` | `{one.default}` | {cell(one.help)} |" for key, one in options.items()] + [""]
    return "\n".join(lines)


def expand(markdown: str) -> str:
    """A page with what its comments stand for."""
    markdown = re.sub(r"<!-- include: (\S+)(?: # (.+?))? -->", lambda found: include(*found.groups()), markdown)
    markdown = re.sub(r"<!-- notebook: (\S+) -->", lambda found: notebook(found.group(1)), markdown)
    markdown = re.sub(r"<!-- registry: (\w+) -->", lambda found: registry(found.group(1)), markdown)

    def link(found: re.Match) -> str:
        for start, page in LINKS.items():
            if found.group(1).startswith(start):
                return f"]({page}{found.group(1).removeprefix(start)})"
        return found.group(0)

    return outside_code(lambda part: re.sub(r"\]\(([^)]+)\)", link, part), markdown)


def on_page_markdown(markdown: str, **_) -> str:
    return expand(markdown)


def on_page_content(html: str, **_) -> str:
    """Roles of other documentation systems in docstrings."""
    return re.sub(r":(?:class|func|mod|data|meth):(?=<code>)", "", html)


def on_files(files, config):
    from mkdocs.structure.files import File

    for name, draw in pictures.PICTURES.items():
        files.append(File.generated(config, f"pictures/{name}.svg", content=pictures.svg(draw)))
    for folder, pattern in FOLDERS.items():
        for path in ROOT.glob(pattern):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files
