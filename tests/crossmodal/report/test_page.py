"""The report of a run, as a file and in a real browser."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from crossmodal import parsing, run
from crossmodal.errors import sparing
from crossmodal.report import page
from crossmodal.training.folder import RunFolder
from tests.crossmodal import runs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1200)  # a phone, a desk
RNG = np.random.default_rng(0)


class Heard(http.server.SimpleHTTPRequestHandler):
    """Writes down what is asked for, and gives nothing."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def heard():
    """(address of a server on this machine, what it was asked for)."""
    asked: list[str] = []
    handler = type("Handler", (Heard,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def data(folder: Path, name: str, y: np.ndarray, **more) -> str:
    """Samples that say something of their target, of four channels."""
    said = y.reshape(len(y), -1)[:, :1, None] if y.ndim < 3 else 0
    x = RNG.normal(size=(len(y), 4, 24)) + 0.2 * said
    np.savez(folder / f"{name}.npz", x=x, y=y, **more)
    return str(folder / f"{name}.npz")


@pytest.fixture(scope="module")
def reports(tmp_path_factory, heard, tiny_bert) -> dict[str, RunFolder]:
    """Finished runs: of every kind of target, with groups, folds and epochs, without a test part, with names from a bad place."""
    folder = tmp_path_factory.mktemp("reports")
    bad = f'<img src="{heard[0]}/name"><script src="{heard[0]}/script"></script>'
    classes, group = np.arange(96) % 3, np.arange(96) // 4
    names = {"class_names": np.array([bad, "rest", "a" * 300])}
    groups = {"group": np.array([f"{bad}{one}" if one == 3 else f"p{one:02}" for one in group])}
    quick = {"verdict": False}
    told = {
        "groups": {"data": data(folder, "groups", classes, **names, **groups), "split": {"test_fraction": 0.5}},
        "labels": {"data": data(folder, "labels", (RNG.random((60, 3)) < 0.4).astype(int)), "kind": "multilabel"}
        | quick,
        "values": {"data": data(folder, "values", RNG.normal(size=60)), "method": "knn", "pictures": "svg"} | quick,
        "field": {"data": data(folder, "field", RNG.normal(size=(60, 2, 24))), "kind": "dense"} | quick,
        "folds": {"data": data(folder, "folds", classes, **groups), "split": {"folds": 3, "final": True}},
        "bare": {"data": data(folder, "bare", classes), "method": "mean", "pictures": None} | quick,
    }
    for name, values in told.items():
        values = {"task": "arrays", "method": "linear", "device": "cpu", "threads": 1} | values
        run.train(parsing.from_dict(values | {"output_dir": str(folder / name)}))
    epochs = runs.settings(
        folder, tiny_bert, epochs=2, pictures="png", verdict=False, output_dir=str(folder / "epochs")
    )
    run.train(parsing.from_dict(epochs))
    found = {name: RunFolder(folder / name) for name in (*told, "epochs")}
    return found | {"final": RunFolder(folder / "folds" / "final")}


def text(folder: RunFolder) -> str:
    """What is to be read in a report, without tags."""
    plain = re.sub(r"<style>.*?</style>|<[^>]*>", " ", folder.report.read_text(), flags=re.S)
    return " ".join(plain.replace("&nbsp;", " ").split())


def test_a_report_has_what_a_run_came_to(reports):
    found, results = text(reports["groups"]), reports["groups"].read_results()
    low, high = results["test_interval"]
    assert f"95 % interval over groups {low:#.4g} to {high:#.4g}, n = 48 in 12 groups" in found
    assert results["verdict"]["sentence"] in found
    for one in results["verdict"]["others"].values():
        assert f"{one['called']}" in found
        assert f"{one['value']:#.4g}" in found
    for name, one in results["test_groups"].items():
        assert f"{one['samples']} {one['accuracy']:#.4g}" in found, name
    assert f"rest 16 {results['test_classes']['rest']['recall']:#.4g}" in found
    assert "split.test_fraction 0.5" in found
    assert "groups 10 train, 2 validation, 12 test" in found
    assert f"torch {results['versions']['torch']}" in found
    assert results["fingerprint"] in found
    epochs = text(reports["epochs"])
    assert "The weights are those of epoch" in epochs
    assert "All 2 epochs" in epochs
    assert {picture.name for picture in page.pictures(reports["epochs"])} >= {"curves.png", "mixing.png", "gate.png"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("groups", ["The method has no epochs, so there is no learning curve."]),
        ("labels", ["The data name no groups", "Intervals are Wilson's."]),
        ("bare", ["None were drawn (pictures null).", "The run was not compared with any (verdict false)."]),
        (
            "final",
            [
                "no test part is left: nothing here says how good it is",
                "There is no test part, so there are no test figures.",
                "There is no test part to compare on.",
            ],
        ),
        (
            "folds",
            [
                "mean over 3 runs",
                "on the same 96 test samples of all folds",
                "The model in final learned from all 96 samples",
            ],
        ),
    ],
)
def test_a_report_says_what_there_is_not(reports, name, told):
    found = text(reports[name])
    for said in told:
        assert said in found
    assert "None" not in found.replace("None were drawn", "")
    assert "nan" not in found.split()


def test_pictures_of_folds_are_of_all_samples(reports):
    results = reports["folds"].read_results()
    assert [picture.name for picture in page.pictures(reports["folds"])] == ["confusion.png", "groups.png", "folds.png"]
    assert sum(one["samples"] for one in results["test_classes"].values()) == 96
    assert page.pictures(reports["folds"])[0].title.startswith("folds.npz, linear: test split, n = 96 in 24 groups")
    for name in ("fold-1", "fold-3", "final"):
        assert f'<a href="{name}/report.html">' in reports["folds"].report.read_text()
        assert (reports["folds"].path / name / "report.html").is_file()


def test_the_command_is_that_of_the_run(reports):
    """Read again it gives the same settings."""
    import shlex

    for name in ("groups", "values", "epochs", "folds"):
        config = parsing.load(reports[name].config)
        program, *words = shlex.split(page.command(config))
        again = parsing.parse(words).to_dict()
        assert program == "pare-train"
        assert again.pop("output_dir") == "again"
        expected = config.to_dict()
        expected.pop("output_dir")
        assert again == expected


def test_vector_pictures_lie_beside_the_others_and_go_with_the_run(reports, tmp_path):
    assert (reports["values"].path / "scatter.svg").read_text().startswith("<?xml")
    shutil.copytree(reports["values"].path, tmp_path / "copy")
    RunFolder(tmp_path / "copy").clear()
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]


def test_a_report_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    with (
        pytest.warns(UserWarning, match=r"x: could not be made \(OSError: full\); the run is whole without"),
        sparing("x"),
    ):
        raise OSError("full")
    with pytest.raises(KeyError), sparing("x"):
        raise KeyError("a mistake of ours")


def test_a_run_that_draws_nothing_does_not_load_matplotlib(reports, tmp_path):
    settings = parsing.load(reports["bare"].config).to_dict() | {"output_dir": str(tmp_path / "run")}
    file = runs.write_settings(tmp_path, settings)
    code = (
        "import sys; from crossmodal import cli; code = cli.train(sys.argv[1:]); "
        "sys.exit(code or 'matplotlib' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code, "--config", str(file)], env=runs.environment(), check=False
        ).returncode
        == 0
    )
    assert (tmp_path / "run" / "report.html").is_file()


# ----- in a browser ------------------------------------------------------------------------------------------------------------

MEASURES = """<!DOCTYPE html><meta charset="utf-8"><pre id="measures"></pre><img src="CONTROL">
FRAMES
<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll("details").forEach(one => one.open = true);
    const wide = [...page.querySelectorAll("body *")].filter(one =>
      !one.closest(".wide") && one.getBoundingClientRect().right > root.clientWidth + 1);
    return {
      name: frame.dataset.name, width: root.clientWidth, scrolls: root.scrollWidth,
      wide: wide.map(one => one.outerHTML.slice(0, 200)),
      pictures: [...page.images].map(one => [one.naturalWidth, one.width, one.alt]),
      scripts: page.scripts.length, title: page.title,
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map(one => one.name),
    };
  });
  document.getElementById("measures").textContent = JSON.stringify(found);
});
</script>"""


def browse(folder: Path, url: str, *options: str) -> str:
    """What a browser without a network makes of a page; its own files lie in the folder."""
    switches = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    switches += (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    )
    switches += (f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
    done = subprocess.run([BROWSER, *switches, *options, url], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def measured(reports, heard, tmp_path_factory) -> list[dict]:
    """What a browser says of every report, on a phone and on a desk."""
    if BROWSER is None:
        pytest.skip("no browser: install Debian's package chromium")
    folder = tmp_path_factory.mktemp("browser")
    frames = "\n".join(
        f'<iframe data-name="{name}" width="{width}" height="900" style="border:0" src="{found.report.as_uri()}"></iframe>'
        for name, found in reports.items()
        for width in WIDTHS
    )
    file = folder / "measures.html"
    file.write_text(MEASURES.replace("CONTROL", f"{heard[0]}/control").replace("FRAMES", frames))
    options = ("--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom")
    dumped = browse(folder / "profile", file.as_uri(), *options)
    found = re.search(r'<pre id="measures">(.*?)</pre>', dumped, flags=re.S)[1]
    found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&nbsp;", " ")
    return json.loads(found)


def test_reports_are_whole_in_a_browser(reports, measured):
    assert [one["name"] for one in measured] == [name for name in reports for _ in WIDTHS]
    assert [one["width"] for one in measured] == [*WIDTHS] * len(reports)
    for one in measured:
        assert one["scrolls"] <= one["width"], one["name"]
        assert one["wide"] == [], one["name"]
        assert all(natural > 0 and 0 < shown <= one["width"] for natural, shown, _ in one["pictures"]), one["name"]
        assert all(len(alt) > 30 for *_, alt in one["pictures"])
        assert ".npz, " in one["title"]
    pictures = {one["name"]: len(one["pictures"]) for one in measured}
    assert {name: count for name, count in pictures.items() if name not in ("epochs", "folds")} == {
        "groups": 3,
        "labels": 2,
        "values": 1,
        "field": 1,
        "bare": 0,
        "final": 0,
    }
    assert pictures["epochs"] >= 6
    assert pictures["folds"] == 3 + 3 * 3


def test_reports_ask_for_nothing_and_run_nothing(measured, heard):
    """The page around them, which asks the same server for a picture, is heard."""
    assert {(one["scripts"], *one["loaded"]) for one in measured} == {(0,)}
    assert heard[1] == ["/control"]
