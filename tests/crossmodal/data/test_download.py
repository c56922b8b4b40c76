"""Downloads from a server of the tests' own, and archives that somebody meant badly."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from crossmodal import cli, tasks
from crossmodal.data import download
from crossmodal.data.download import Remote, fetch, unpack
from crossmodal.errors import UserError

CONTENT = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    """Serves `files`; notes every request. `cut`: bytes after which it hangs up. `tag`: its ETag, None for none. `off`: by how many
    bytes it misses the range it is asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cut, self.tag, self.off = {}, [], None, '"one"', 0

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        content = server.files.get(self.path[1:])
        if content is None:
            return self.send_error(404)
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == server.tag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        if start:
            start += server.off
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(content[start : server.cut])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_a_broken_download_goes_on_where_it_was_cut_off(tmp_path, server, capsys):
    server.files["a.bin"], server.cut = CONTENT, 100_000
    files = [Remote("in/a.bin", server.url("a.bin"), len(CONTENT), sha256(CONTENT))]
    with pytest.raises(UserError, match=r"start again, and it goes on .*it belongs at \S+/in/a\.bin"):
        fetch("toy", files, tmp_path)
    assert not (tmp_path / "in/a.bin").exists()
    server.cut, server.off = None, 1
    with pytest.raises(UserError, match="asked for the bytes from 65536 on, and others came"):
        fetch("toy", files, tmp_path)
    server.off = 0
    fetch("toy", files, tmp_path)
    assert (tmp_path / "in/a.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=65536-", "bytes=65536-"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.bin"]
    assert "toy is complete: --task toy --data_dir" in capsys.readouterr().out
    fetch("toy", files, tmp_path)
    assert len(server.asked) == 3
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize("tag", ['"two"', None])
def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(tmp_path, server, tag):
    server.files["a.bin"], server.cut = CONTENT, 100_000
    files = [Remote("a.bin", server.url("a.bin"))]
    with pytest.raises(UserError):
        fetch("toy", files, tmp_path)
    server.files["a.bin"], server.cut, server.tag = CONTENT[::-1], None, tag
    fetch("toy", files, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_what_has_another_checksum_is_thrown_away(tmp_path, server):
    server.files["a.bin"] = CONTENT + b"!"
    with pytest.raises(UserError, match="not the known checksum"):
        fetch("toy", [Remote("a.bin", server.url("a.bin"), hash=sha256(CONTENT))], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_two_downloads_at_once_one_fetches(tmp_path, server):
    server.files["a.bin"] = CONTENT
    given = "toy", [Remote("a.bin", server.url("a.bin"), hash=sha256(CONTENT))], tmp_path / "data"
    both = [threading.Thread(target=fetch, args=given) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert server.asked == [None]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a.bin"]


def test_what_cannot_be_fetched_is_told_after_the_rest_came(tmp_path, server):
    server.files["b.bin"] = CONTENT
    files = [
        Remote("gone.bin", server.url("gone.bin"), how="fetch it from the authors"),
        Remote("hand.pkl", how="challenge2017.pkl of the folder of the benchmark"),
        Remote("b.bin", server.url("b.bin")),
        *(Remote(f"inside/{part}", server.url("gone.zip"), unpack="") for part in ("train", "test")),
    ]
    with pytest.raises(UserError) as refused:
        fetch("toy", files, tmp_path)
    said = str(refused.value)
    assert said.count("gone.zip: ") == 1  # an archive that holds two of them
    assert "404" in said
    assert f"fetch it from the authors; it belongs at {tmp_path / 'gone.bin'}" in said
    assert "hand.pkl has no stable address: challenge2017.pkl of the folder" in said
    assert (tmp_path / "b.bin").exists()
    with pytest.raises(UserError, match="needs no files"):
        fetch("toy", [], tmp_path)


def pack(path, members):
    """A .zip or .tar of (name, content) pairs; a content that is no bytes is a link to it."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members:
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (0o120777 if isinstance(content, str) else 0o100644) << 16
                packed.writestr(info, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as packed:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                packed.addfile(info)
            else:
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("holds", ["", "in/", "./in/"])
def test_an_archive_is_fetched_and_unpacked(tmp_path, server, name, holds):
    """Whether it holds the folder or what is in it."""
    packed = pack(tmp_path / name, [(f"{holds}set/train/1", b"one"), (f"{holds}set/2", b"two")])
    server.files[name] = packed.read_bytes()
    folder = tmp_path / "data"
    (folder / "in/set").mkdir(parents=True)
    (folder / "in/set/mine").write_text("stays")
    file = Remote("in/set/train", server.url(name), unpack="in")
    fetch("toy", [file], folder)
    assert (folder / "in/set/train/1").read_bytes() == b"one"
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["1", "2", "mine"]
    with pytest.raises(UserError, match="is there already"):
        unpack(packed, folder, "in")


BAD = [
    ([("ok", b"1"), ("../out", b"2")], "leads out"),
    ([("ok", b"1"), ("/out", b"2")], "leads out"),
    ([("ok", b"1"), ("a\\..\\..\\out", b"2")], "leads out"),
    ([("ok", b"1"), ("link", "/etc")], "neither a file nor a folder"),
    ([("ok", b"1"), ("zeros", bytes(10**6))], "unpack to more than 20 times"),
]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize(("members", "said"), BAD)
def test_a_hostile_archive_is_refused_before_anything_is_written(tmp_path, name, members, said):
    packed = pack(tmp_path / name, members)
    with pytest.raises(UserError, match=said):
        unpack(packed, tmp_path / "data/in")
    assert [path.name for path in tmp_path.rglob("*")] in ([name, "data", "in"], ["data", name, "in"])


def test_a_damaged_archive_and_a_full_disk_are_told(tmp_path, monkeypatch):
    packed = pack(tmp_path / "a.tar.gz", [("x", np.random.default_rng(0).bytes(9000))])
    packed.write_bytes(packed.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cannot be unpacked|truncated"):
        unpack(packed, tmp_path / "in")
    packed.write_bytes(b"hello")
    with pytest.raises(UserError, match=r"neither a \.zip nor a \.tar"):
        unpack(packed, tmp_path / "in")
    packed = pack(tmp_path / "b.zip", [("x", bytes(range(256)))])
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(UserError, match="GiB that are free"):
        unpack(packed, tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []


def test_the_command_line_fetches_and_says_what_it_lacks(tmp_path, server, capsys, monkeypatch):
    server.files["a.bin"] = CONTENT
    entry = tasks.base.Entry(lambda _: None, "a toy", False, ("default",), (Remote("a.bin", server.url("a.bin")),))
    monkeypatch.setitem(tasks.base.REGISTRY, "toy", entry)
    with pytest.raises(
        UserError, match=r"task 'toy' needs public files, and it reads a\.bin .*--download toy --data_dir DIR"
    ):
        tasks.load("toy")
    with pytest.raises(UserError, match=r"lacks a\.bin.*miniature\.py toy -o"):
        tasks.load("toy", data_dir=tmp_path)
    assert cli.train(["--download", "toy", "--data_dir", str(tmp_path)]) == 0
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert cli.train(["--download=toys", "--data_dir", str(tmp_path)]) == 2
    assert "did you mean 'toy'" in capsys.readouterr().err
