"""Recordings of one's own: formats, windows, rates, labels of each moment, and what is refused."""

from __future__ import annotations

import sys
import types
from fractions import Fraction

import numpy as np
import pytest
from scipy.io import wavfile

from crossmodal import cli, predict, tasks
from crossmodal.data import windows
from crossmodal.data.readers.recordings import open_recording
from crossmodal.errors import UserError
from crossmodal.settings import RecordingsConfig, TableConfig
from crossmodal.tasks.base import Options
from crossmodal.tasks.recordings import load_recordings, read_recording

RATE, CHANNELS = 100, 2


def write_csv(path, values, labels=None, head="time (s),a (mV),b (mV)", rate=RATE):
    """A recording (C, n) as a table."""
    columns = [np.arange(values.shape[1]) / rate, *values] if head and head.startswith("time") else [*values]
    lines = [",".join(f"{cell:.6g}" for cell in row) for row in zip(*columns, strict=True)]
    if labels is not None:
        head, lines = f"{head},state", [f"{line},{label}" for line, label in zip(lines, labels, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*([head] if head else []), *lines]) + "\n")


@pytest.fixture
def folder(tmp_path):
    """Eight recordings of 3 to 3.7 s, of four people."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "emg"
    lines = ["file,gesture,group,split"]
    for i in range(8):
        write_csv(folder / f"r{i}.csv", rng.normal(size=(CHANNELS, 300 + 10 * i)) * (1 + 3 * (i % 2)))
        lines.append(f"r{i}.csv,{('rest', 'fist')[i % 2]},p{i // 2},{'train' if i < 6 else 'test'}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def raw(folder, kind=None, table=None, **told):
    return load_recordings(
        Options(data=folder, kind=kind, table=TableConfig(**(table or {})), recordings=RecordingsConfig(**told))
    )


def relist(folder, change, head=None):
    """The index with its lines changed."""
    first, *lines = (folder / "index.csv").read_text().split()
    (folder / "index.csv").write_text("\n".join([head or first, *(change(i, line) for i, line in enumerate(lines))]))


def test_windows(folder):
    task = tasks.load("arrays", data=folder, recordings=RecordingsConfig(window="1s", hop="500ms"))
    assert task.input_shape == (CHANNELS, RATE)
    assert (task.about.features, task.about.units, task.about.rate) == (("a", "b"), ("mV", "mV"), RATE)
    assert len(task.test) == sum(1 + (length - 100) // 50 for length in (360, 370))
    for line in (
        "channels        2: a [mV], b [mV]",
        "rate            100 values per second; a sample is 1 s",
        "target          gesture: fist 22, rest 21",
        "groups          2 train, 1 validation, 1 test",
        "recordings      8 files, 3 to 3.7 s",
        "window          100 values (1 s), one every 50 values (0.5 s)",
    ):
        assert line in task.description


def test_a_window_is_where_it_is_said_to_be(folder):
    found = raw(folder, window="100", hop="70", table={"split": None})
    whole = open_recording(folder / "r1.csv").load()
    first = 1 + (300 - 100) // 70
    np.testing.assert_array_equal(found.x_train[first + 1], whole[:, 70:170])
    assert found.group_train[first + 1] == "p0"
    assert found.y_train[first] == "fist"


def test_windows_of_a_recording_are_one_group(folder):
    relist(folder, lambda i, line: ",".join(line.split(",")[:2]), "file,gesture")
    found = raw(folder, window="1s")
    assert set(found.group_train) == {f"r{i}.csv" for i in range(8)}
    assert found.x_test is None
    one = raw(folder, window="3s", hop="4s")
    assert one.group_train is None  # a sample each


def test_channels_are_left_out(folder):
    """Under their name, with their unit or without; what is in them does not matter."""
    for i in range(8):
        path = folder / f"r{i}.csv"
        first, *lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{first},comment", *(f"{line},good" for line in lines)]))
    for name in ("b", "b (mV)"):
        found = raw(folder, window="1s", table={"ignore": f"comment,{name}"})
        assert (found.about.features, found.x_train.shape[1]) == (("a",), 1)
        assert found.about.rows["ignored"] == f"comment, {name}"
    with pytest.raises(
        UserError, match=r"r0\.csv, line 2: channel 'comment' holds 'good', expected a number; --table\.ignore comment"
    ):
        raw(folder, window="1s")


def test_pieces_of_recordings(folder):
    relist(folder, lambda i, line: f"r0.csv,{i % 2},{i * 30},,{(i + 1) * 0.3}", "file,y,start,stop,stop_s")
    found = raw(folder)
    assert found.x_train.shape == (8, CHANNELS, 30)
    np.testing.assert_array_equal(
        np.concatenate(found.x_train, axis=1), open_recording(folder / "r0.csv").load()[:, :240]
    )
    assert found.y_train.tolist() == [0, 1] * 4
    for head, cells, message in (
        ("start,stop", "0,900", r"line 2: stop: 900 lies outside of r0\.csv, of 300 values"),
        ("start,stop", "50,50", r"line 2: starts at value 50 and stops at 50"),
        (
            "start,stop",
            "0.5,50",
            r"line 2: start: expected a whole number of values, got 0\.5; seconds go into the column start_s",
        ),
        ("start,stop", "x,50", r"line 2: start: expected a number, got 'x'|column 'start'"),
    ):
        (folder / "index.csv").write_text(f"file,y,{head}\nr0.csv,1,{cells}\n")
        with pytest.raises(UserError, match=message):
            raw(folder)


def test_folders_of_parts_classes_and_groups(tmp_path):
    rng = np.random.default_rng(0)
    for part, people in (("train", "abc"), ("test", "d")):
        for name in ("up", "down"):
            for person in people:
                place = tmp_path / part / name / person
                place.mkdir(parents=True)
                np.save(place / "r.npy", rng.normal(size=(40, 3)))  # time first: the longer axis
    found = raw(tmp_path)
    assert (found.x_train.shape, found.x_test.shape) == ((6, 3, 40), (2, 3, 40))
    assert sorted(set(found.group_train)) == ["a", "b", "c"]
    assert sorted(found.y_test) == ["down", "up"]
    (tmp_path / "train" / "up" / "notes.txt").write_text("?")
    with pytest.raises(UserError, match=r"notes\.txt: expected one of \.csv"):
        raw(tmp_path)


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1), (3, 4)])
def test_resampling_keeps_what_the_new_rate_holds(up, down):
    t = np.arange(400) / 200
    wave = np.stack([np.sin(2 * np.pi * 5 * t), 3 + 0 * t])
    found = windows.at_rate(wave, Fraction(up, down))
    then = np.arange(found.shape[1]) / 200 * down / up
    np.testing.assert_allclose(found[0, 30:-30], np.sin(2 * np.pi * 5 * then)[30:-30], atol=0.01)
    np.testing.assert_allclose(found[1], 3, atol=0.01)  # up to its ends


def test_one_rate_for_all(tmp_path):
    for i in range(8):
        rate = 4000 if i % 2 else 2000
        place = tmp_path / ("train" if i < 6 else "test") / "ab"[i // 2 % 2]
        place.mkdir(parents=True, exist_ok=True)
        wavfile.write(place / f"s{i}.wav", rate, (2**14 * np.sin(440 * np.arange(rate) / rate)).astype(np.int16))
    with pytest.raises(
        UserError, match=r"differ in rate \(s6\.wav 2000 Hz, s7\.wav 4000 Hz\); --recordings\.resample 2000"
    ):
        raw(tmp_path)
    found = raw(tmp_path, resample=2000)
    assert found.x_train.shape == (6, 1, 2000)
    np.testing.assert_allclose(found.x_train[0, 0, 50:-50], found.x_train[1, 0, 50:-50], atol=2e-3)
    assert "4 files of 4000 Hz to 2000 Hz" in found.about.rows["resampled"]
    np.save(tmp_path / "train" / "a" / "x.npy", np.zeros(2000))
    with pytest.raises(UserError, match=r"x\.npy: does not say how many values a second has; --recordings\.rate"):
        raw(tmp_path, resample=2000)


def test_times_may_have_dates(tmp_path):
    at = np.datetime64("2024-05-01T12:00:00") + np.arange(200) * np.timedelta64(15625, "us")
    cells = np.datetime_as_string(at, unit="ms")
    (tmp_path / "a.csv").write_text("\n".join(["timestamp,x", *(f"{cell}Z,1" for cell in cells)]))
    assert open_recording(tmp_path / "a.csv").rate == 64
    (tmp_path / "a.csv").write_text("\n".join(["timestamp,x", *(f"{cell},1" for cell in cells[:9]), "noon,1"]))
    with pytest.raises(
        UserError, match=r"'timestamp' must hold times, in numbers or as 2024-05-01 12:00:00\.25, in every"
    ):
        open_recording(tmp_path / "a.csv")


STATES = np.repeat(["", "walk", "sit", "walk"], 25)


@pytest.mark.parametrize(
    ("labels", "told", "expected", "kind"),
    [
        (STATES, {}, ["walk", "sit", "walk"], None),  # the first window has none, and goes
        (np.repeat(["", "walk", "sit", "sit"], [25, 20, 30, 25]), {"rule": "last"}, ["sit", "sit", "sit"], None),
        (STATES, {"rule": "any", "window": "50"}, [[0, 1], [1, 1]], "multilabel"),
        (np.repeat([0, 1, 0, 0], [26, 9, 40, 25]), {"rule": "any"}, [0, 1, 0, 0], None),
        (np.repeat([0, 1, 0, 1], [26, 9, 40, 25]), {}, [0, 0, 0, 1], None),
        (np.arange(100) + 0.5, {}, [24.5, 49.5, 74.5, 99.5], "regression"),
    ],
)
def test_labels_of_each_moment(tmp_path, labels, told, expected, kind):
    write_csv(tmp_path / "r.csv", np.random.default_rng(0).normal(size=(2, 100)), labels)
    (tmp_path / "index.csv").write_text("file\nr.csv\n")
    found = raw(tmp_path, labels="state", **{"window": "25"} | told)
    assert found.y_train.tolist() == expected
    assert found.kind == kind
    assert found.about.features == ("a", "b")
    assert found.about.targets == ("state",)


def test_files_with_labels_within_lie_in_one_folder_or_in_those_of_their_groups(tmp_path):
    labels = np.repeat(["a", "b"], 50)
    for place in (
        "flat/r0.csv",
        "flat/r1.csv",
        "flat/r2.csv",
        "people/p1/r0.csv",
        "people/p1/r1.csv",
        "people/p2/r0.csv",
    ):
        write_csv(tmp_path / place, np.random.default_rng(0).normal(size=(2, 100)), labels)
    told = {"labels": "state", "window": "25"}
    assert raw(tmp_path / "flat", **told).group_train.tolist() == np.repeat(["r0.csv", "r1.csv", "r2.csv"], 4).tolist()
    assert raw(tmp_path / "people", **told).group_train.tolist() == ["p1"] * 8 + ["p2"] * 4
    with pytest.raises(
        UserError, match=r"no folder of recordings \(in folders of classes.* --recordings\.labels COLUMN"
    ):
        tasks.load("arrays", data=tmp_path / "flat", recordings=RecordingsConfig(window="25"))
    task = tasks.load("arrays", data=tmp_path / "flat", recordings=RecordingsConfig(**told))
    assert (
        "warning: fewer than 5 test groups do not tell how sure a figure is: take --split.folds 3" in task.description
    )


def test_a_folder_beside_those_of_the_parts_is_named(tmp_path):
    for place in ("train/a/0.csv", "train/b/1.csv", "test/a/2.csv", "test/b/3.csv", "New/4.csv"):
        write_csv(tmp_path / place, np.ones((2, 30)))
    with pytest.raises(
        UserError, match=r"has folders of parts \(train, test\), and beside them New, which is none: move it"
    ):
        raw(tmp_path)


@pytest.mark.parametrize(
    ("change", "told", "message"),
    [
        (lambda f: (f / "r3.csv").unlink(), {}, r"index\.csv, line 5: no such file: .*r3\.csv"),
        (lambda f: relist(f, lambda i, line: line.replace("r2", "../r2")), {}, r"line 4: the file '\.\./r2\.csv' lies outside"),
        (lambda f: relist(f, lambda i, line: line.replace("r2", "/etc/r2")), {}, r"line 4: the file '/etc/r2\.csv' lies outside"),
        (lambda f: relist(f, lambda i, line: line + ",1", "file,u,v,w,x"), {}, r"which column of .*index\.csv is to be predicted"),
        (lambda f: relist(f, lambda i, line: line, "path,gesture,group,split"), {}, r"index\.csv has no column 'file'"),
        (lambda f: write_csv(f / "r2.csv", np.full((2, 300), np.nan)), {}, r"r2\.csv, line 2: channel 'a \(mV\)' holds 'nan'"),
        (lambda f: write_csv(f / "r2.csv", np.zeros((1, 300)), head="time (s),a (mV)"), {}, r"r2\.csv: has no channel 'b'"),
        (lambda f: (f / "r2.csv").write_text("a,b\n1,2\n3\n"), {}, r"r2\.csv, line 3: 1 cells, but 2 in the first line"),
        (lambda f: (f / "r2.csv").write_text("t,a\n0,1\n.01,2\n.5,1\n.51,1"), {}, r"r2\.csv, line [34]: column 't': times"),
        (lambda f: (f / "r2.csv").write_bytes(b"\xff\xfe"), {}, r"r2\.csv: not a text file in UTF-8"),
        (lambda f: (f / "r2.csv").write_text("a,b\n"), {}, r"r2\.csv: holds 0 values of 2 channels"),
        (None, {"window": None}, r"differ in length, from 300 values \(3 s\) \(r0\.csv\) to 370 .* --recordings\.window 3s"),
        (None, {"window": "9s"}, r"recordings\.window: 900 values \(9 s\), but the longest recording has 370 values"),
        (None, {"window": "0s"}, r"recordings\.window: expected at least one value"),
        (None, {"window": "1 h"}, r"recordings\.window: expected seconds \(2s, 500ms\) or values \(400\), got '1 h'"),
        (None, {"hop": "1.5"}, r"recordings\.hop: expected a whole number, got 1\.5"),
        (None, {"table": {"ignore": "bb"}}, r"table\.ignore: no recording has a channel 'bb', did you mean"),
        (None, {"rule": "any"}, r"recordings\.rule: is for labels of each moment"),
        (None, {"labels": "stat"}, r"recordings\.labels: .*r0\.csv has no column 'stat'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(folder, change, told, message):
    if change is not None:
        change(folder)
    with pytest.raises(UserError, match=message):
        raw(folder, **{"window": "1s"} | told)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.wav", lambda p: wavfile.write(p, 100, np.zeros(0, np.int16)), r"a\.wav: holds no sound|a\.wav: not a WAV"),
        ("a.wav", lambda p: p.write_bytes(b"RIFF"), r"a\.wav: not a WAV file, or a damaged one"),
        (
            "a.npy",
            lambda p: np.save(p, np.array([None]), allow_pickle=True),
            r"a\.npy: cannot be read: it holds Python objects",
        ),
        (
            "a.npy",
            lambda p: np.save(p, np.zeros((4, 4))),
            r"a\.npy: of shape \(4, 4\), of which either axis may be time",
        ),
        ("a.npy", lambda p: np.save(p, np.array([0, 1, np.inf])), r"a\.npy: channel '0' holds inf at place 2"),
        ("a.csv", lambda p: p.write_text("a,1\n1,2\n"), r"a\.csv, line 1: neither names of channels nor numbers"),
        ("a.mp3", lambda p: p.write_bytes(b""), r"a\.mp3: expected one of"),
    ],
)
def test_malformed_files(tmp_path, name, make, message):
    make(tmp_path / name)
    (tmp_path / "index.csv").write_text(f"file,y\n{name},1\n")
    with pytest.raises(UserError, match=message):
        raw(tmp_path)


def test_what_looks_wrong_is_said(folder):
    turned = folder.with_name("turned")
    for name in "ab":
        write_csv(turned / f"{name}.csv", np.arange(24.0).reshape(8, 3), head=",".join("abcdefgh"))
    (turned / "index.csv").write_text("file,y\na.csv,1\nb.csv,2\n")
    assert "warning: a.csv has 8 channels of 3 values: if these are 3 channels" in "\n".join(raw(turned).notes)
    flat = np.stack([np.arange(300.0), np.full(300, 2.0)])
    for i in range(8):
        write_csv(folder / f"r{i}.csv", flat, head="time (s),a (mV),b (mV)" if i else "time (s),a (mV),b (V)")
    notes = "\n".join(raw(folder, window="50").notes)
    assert "warning: constant channels, which say nothing: b." in notes
    assert "channel 'b' is in V in r0.csv, in mV in r1.csv" in notes
    assert "copies of other samples: 42 of 48" in notes
    assert "(first: r1.csv from 0 s copies r0.csv from 0 s)" in notes
    write_csv(folder / "r5.csv", np.ones((3, 300)), head="time (s),a (mV),b (mV),c (mV)")
    notes = "\n".join(raw(folder, window="50", rate=100.0).notes)
    assert "r5.csv has channels that r0.csv lacks, left out: c." in notes
    assert "--recordings.rate is for files that do not say their rate" in notes
    write_csv(folder / "r0.csv", np.ones((2, 20)))
    assert "recordings shorter than a window, left out: 1 of 8 (r0.csv)" in "\n".join(raw(folder, window="50").notes)


def test_recordings_that_do_not_fit_into_memory_are_read_as_they_are_needed(folder, monkeypatch):
    told = {"window": "1s", "hop": "0.3s", "resample": 50.0}
    expected = raw(folder, **told)
    monkeypatch.setattr(windows, "free_memory", lambda: 0)
    before = sorted(folder.rglob("*"))
    checked = tasks.load("arrays", data=folder, recordings=RecordingsConfig(**told), copies=False)
    assert sorted(folder.rglob("*")) == before
    found = raw(folder, **told)
    assert not isinstance(found.x_train, np.ndarray)
    rows = np.random.default_rng(0).permutation(len(expected.x_test))
    np.testing.assert_allclose(found.x_test[rows], expected.x_test[rows], rtol=1e-6)
    task = tasks.load("arrays", data=folder, recordings=RecordingsConfig(**told))
    assert len(task.test) == len(rows)
    assert sorted(folder.rglob("*")) != before
    assert checked.description == task.description


def test_edf(tmp_path):
    edfio = pytest.importorskip("edfio")
    wave = np.random.default_rng(0).normal(size=(2, 600))
    signals = [
        edfio.EdfSignal(one, 200, label=name, physical_dimension="uV")
        for one, name in zip(wave, ("C3", "C4"), strict=True)
    ]
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(1.0, 1.0, "seizure")]).write(tmp_path / "r.edf")
    (tmp_path / "index.csv").write_text("file\nr.edf\n")
    found = raw(tmp_path, labels="annotations", window="500ms", rule="any")
    assert found.y_train.ravel().tolist() == [0, 0, 1, 1, 0, 0]
    np.testing.assert_allclose(np.concatenate(found.x_train, axis=1), wave, atol=1e-3)
    assert (found.about.features, found.about.units, found.about.rate) == (("C3", "C4"), ("uV", "uV"), 200)
    (tmp_path / "r.edf").write_bytes(b"0" * 300)
    with pytest.raises(UserError, match=r"r\.edf: not an EDF file, or a damaged one"):
        raw(tmp_path, labels="annotations")


def test_wfdb(tmp_path, monkeypatch):
    """By a stand-in of the package, with the calls that are made of it."""
    wave = np.random.default_rng(0).normal(size=(300, 2))
    header = types.SimpleNamespace(
        sig_name=["I", "II"], units=["mV", "mV"], fs=100, sig_len=300, file_name=["r.dat"] * 2
    )
    marks = types.SimpleNamespace(sample=[10, 120], symbol=["N", "V"])
    stand_in = types.SimpleNamespace(
        rdheader=lambda name: header,
        rdrecord=lambda name, sampto=None: types.SimpleNamespace(p_signal=wave),
        rdann=lambda name, extension: marks,
    )
    monkeypatch.setitem(sys.modules, "wfdb", stand_in)
    (tmp_path / "r.hea").write_text("")
    (tmp_path / "index.csv").write_text("file\nr.hea\n")
    found = raw(tmp_path, labels="annotations", window="1s", rule="any")
    assert (found.class_names, found.y_train.tolist()) == (("N", "V"), [[1, 0], [0, 1], [0, 0]])
    np.testing.assert_allclose(found.x_train[1], wave[100:200].T, rtol=1e-6)
    header.file_name = ["../r.dat"]
    with pytest.raises(UserError, match=r"r\.hea: its header names a file of another folder: \.\./r\.dat"):
        raw(tmp_path, labels="annotations", window="1s")
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(UserError, match=r"needs the package wfdb, .* 'pare-kernels\[wfdb\]'"):
        raw(tmp_path, labels="annotations", window="1s")


def test_from_the_command_line_to_a_new_recording(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = ["--data", str(folder), "--recordings.window", "1s", "--recordings.hop", "0.5s", "--method", "rocket"]
    assert cli.train([*told, "--output_dir", "run", "--device", "cpu", "--rocket.kernels", "100"]) == 0
    capsys.readouterr()
    write_csv(tmp_path / "new.csv", open_recording(folder / "r6.csv").load()[::-1], head="time (s),b (mV),a (mV)")
    predict.main(["run", "new.csv", "-o", "out.npz"])
    assert "new.csv: 6 windows of 100 values (1 s), one every 50 values (0.5 s)" in capsys.readouterr().out
    predict.main(["run", str(folder / "r6.csv"), "-o", "same.npz"])
    new, same = np.load("out.npz"), np.load("same.npz")
    assert new["sample_file"][1] == "new.csv"
    assert (new["sample_start_s"][1], new["sample_stop_s"][1]) == (0.5, 1.5)
    np.testing.assert_allclose(new["probabilities"], same["probabilities"])  # channels are found by their names
    write_csv(tmp_path / "short.csv", np.zeros((2, 40)))
    with pytest.raises(UserError, match="has 40 values"):
        predict.main(["run", "short.csv", "-o", "out.npz"])
    reading = {"channels": ["a", "b"], "ignore": [], "given_rate": None, "rate": 50.0, "window": 50, "hop": 50}
    x, places, said = read_recording(folder / "r0.csv", reading)
    assert x.shape == (3, 2, 50)
    assert places == {"start_s": [0, 1, 2], "stop_s": [1, 2, 3]}
    assert said.endswith("resampled from 100 to 50 Hz")
