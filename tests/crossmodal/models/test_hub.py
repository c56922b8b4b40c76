"""Encoders from a hub, which is served here: fetched once, then taken from the cache; and what is said when there is none."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from transformers import AutoModel

from tests.crossmodal import runs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import sys
from crossmodal.models import encoders
try:
    encoder = encoders.load(sys.argv[1])
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
encoder.attach((1, 16))
print(encoder.name, len(encoder.tokenizer), sum(float(p.double().sum()) for p in encoder.model.parameters()))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as its client uses to fetch the files of one model, ``tests/tiny``."""

    folder: Path
    asked: list[str]

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        path = self.path.split("?")[0]
        self.asked.append(f"{self.command} {path}")
        files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        if not path.startswith(("/api/models/tests/tiny", "/tests/tiny/resolve")):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)} for name, data in files.items()
            ]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in files]
            body = {"id": "tests/tiny", "modelId": "tests/tiny", "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        elif (data := files.get(path.rsplit("/", 1)[1])) is not None:
            self._send(200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    def _send(self, code, body, headers):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub(tmp_path, tiny_bert):
    folder = tmp_path / "served"
    shutil.copytree(tiny_bert, folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    handler = type("Handler", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def load(name: str, endpoint: str, home: Path, **extra: str) -> subprocess.CompletedProcess:
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)} | extra
    foreign = ("hf_", "transformers_offline", "http_proxy", "https_proxy", "all_proxy")
    environment = {
        key: value for key, value in runs.environment().items() if not key.lower().startswith(foreign)
    } | ours
    command = [sys.executable, "-c", LOAD, name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_model_is_fetched_once_and_then_read_from_the_cache(hub, tmp_path, tiny_bert):
    endpoint, home = f"http://127.0.0.1:{hub.server_port}", tmp_path / "home"
    local = load(tiny_bert, endpoint, home)
    fetched = load("tests/tiny", endpoint, home)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.split()[0] == "tests/tiny"
    assert fetched.stdout.split()[1:] == local.stdout.split()[1:]
    asked = hub.RequestHandlerClass.asked
    assert any("model.safetensors" in line for line in asked)
    assert not any(line.startswith("GET") and "pytorch_model.bin" in line for line in asked), "no pickle is fetched"

    asked.clear()
    again = load("tests/tiny", endpoint, home)
    assert again.stdout == fetched.stdout
    assert asked == []
    offline = load("tests/tiny", "http://127.0.0.1:9", home, HF_HUB_OFFLINE="1")
    assert offline.stdout == fetched.stdout


def test_what_an_interruption_left_is_fetched_again(hub, tmp_path):
    """Weights in shards, of which some are missing, or their index; or the tokenizer is."""
    served, home = hub.RequestHandlerClass.folder, tmp_path / "home"
    AutoModel.from_pretrained(served).save_pretrained(served, max_shard_size="8KB")
    (served / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(file.name for file in served.glob("model-*.safetensors"))
    assert len(shards) > 1
    endpoint, asked = f"http://127.0.0.1:{hub.server_port}", hub.RequestHandlerClass.asked
    whole = load("tests/tiny", endpoint, home)
    assert whole.returncode == 0, whole.stderr
    order = [line.rsplit("/", 1)[1] for line in asked if line.startswith("GET") and "/resolve/" in line]
    last = len(order) - len(shards) - 1
    assert order.index("tokenizer.json") < order.index("config.json") < last
    assert set(order[last:]) == {*shards, "model.safetensors.index.json"}

    for lost in (shards[1:], ["model.safetensors.index.json"], ["config.json", "tokenizer.json"]):
        for file in [file for name in lost for file in home.rglob(name)]:
            file.resolve().unlink()
            file.unlink(missing_ok=True)
        asked.clear()
        again = load("tests/tiny", endpoint, home)
        assert again.stdout == whole.stdout, again.stderr
        fetched = {line.rsplit("/", 1)[1] for line in asked if line.startswith("GET") and "/resolve/" in line}
        assert fetched == set(lost)


def test_what_cannot_be_had_is_said_at_once(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    unknown = load("tests/no-such-model", endpoint, tmp_path / "home")
    assert "UserError: encoder 'tests/no-such-model' is neither a local folder nor a model of the hub" in unknown.stderr

    closed = load("tests/tiny", "http://127.0.0.1:9", tmp_path / "other")
    assert "encoder 'tests/tiny' is not a local folder, is not in the cache" in closed.stderr
    assert "cannot be reached" in closed.stderr, "found before the hub's client tries for half a minute"
    assert "give its folder" in closed.stderr
    behind = load("tests/tiny", endpoint, tmp_path / "other", HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="")
    assert (
        "UserError: encoder 'tests/tiny' is not a local folder and could not be had from the model hub" in behind.stderr
    )
    assert "give its folder" in behind.stderr
    off = load("tests/tiny", endpoint, tmp_path / "other", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in off.stderr

    for file in hub.RequestHandlerClass.folder.glob("*.safetensors"):
        file.unlink()
    bare = load("tests/tiny", endpoint, tmp_path / "bare")
    assert "has no weights in safetensors format on the hub" in bare.stderr
    assert os.listdir(tmp_path / "bare")
