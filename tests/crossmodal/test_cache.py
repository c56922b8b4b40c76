import warnings
from pathlib import Path

import pytest

from crossmodal import cache


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("PARE_CACHE_DIR", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache.folder() == Path("/a")
    monkeypatch.delenv("PARE_CACHE_DIR")
    assert cache.folder() == Path("/b/pare_kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.folder() == Path("/home/somebody/.cache/pare_kernels")


def test_write_makes_the_folder_and_leaves_nothing_else(tmp_path):
    cache.write(tmp_path / "deep" / "x.json", "[]")
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["x.json"]
    assert (tmp_path / "deep" / "x.json").read_text() == "[]"


def test_a_cache_that_cannot_be_written_is_mentioned_once(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x.json"  # a file is in the place of the folder
    with pytest.warns(UserWarning, match="cannot be written .*set PARE_CACHE_DIR"):
        cache.write(path, "[]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.write(path, "[]")
