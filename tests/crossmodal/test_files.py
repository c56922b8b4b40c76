from __future__ import annotations

import json
import stat

import pytest

from crossmodal import files
from crossmodal.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def fail() -> None:
        with files.replacing(path) as aside:
            aside.write_text("half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_files_are_as_readable_as_any_other(tmp_path):
    files.write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_json_has_no_word_for_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.0, float("inf")], "c": ("x", -float("inf"))})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1.0, None], "c": ["x", None]}


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_is_added_to_a_folder_is_added_whole_or_not_at_all(tmp_path):
    def add(text):
        with files.adding(tmp_path / "to") as aside:
            (aside / "in").mkdir()
            for name in ("in/one", "two"):
                (aside / name).write_text(text)
            if text == "stop":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add("stop")
    assert list((tmp_path / "to").iterdir()) == []
    (tmp_path / "to/in").mkdir()
    (tmp_path / "to/in/mine").write_text("stays")
    add("first")
    assert {path.name for path in (tmp_path / "to").rglob("*")} == {"in", "mine", "one", "two"}
    with pytest.raises(UserError, match=r"in/one is there already"):
        add("second")
    assert (tmp_path / "to/two").read_text() == "first"
