"""Public files of a task: fetched by pooch, resumed where a connection broke, checked, unpacked with care.

Archives from outside are hostile until they are looked through: before anything is written, every name in one has to stay below
the folder it is unpacked to, nothing may be a link or a device, and all of it together may not be out of proportion.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from crossmodal.errors import MissingPackage, UserError
from crossmodal.files import adding, alone

MOST_TIMES = 20  # an archive may hold so many times its own size: measurements shrink less, and bombs a thousandfold
BLOCK = 1 << 16  # of what a broken connection leaves, less than this is lost
SECONDS = 60  # without a byte, after which a connection counts as broken


@dataclass(frozen=True)
class Remote:
    """What a task reads, and where it is to be had.

    Attributes:
        path: where it lies below the folder of the data; of an archive, something that it holds.
        url: address that has been stable; None where there is none.
        size: bytes of the download, more or less, as far as known.
        hash: `md5:...` or `sha256:...` of the download, where one is known.
        unpack: for an archive (.zip, .tar, .tar.gz): folder below that of the data to unpack it to ("" for that itself), unless the
            archive holds that folder.
        how: what to fetch where, for a person: without `url`, or when it fails.
    """

    path: str
    url: str | None = None
    size: int | None = None
    hash: str | None = None
    unpack: str | None = None
    how: str = ""

    def advice(self, folder: Path) -> str:
        """One sentence: what to fetch by hand, and where to put it."""
        place = f"it belongs at {folder / self.path}"
        return f"{self.how}; {place}" if self.how else place


def missing(files: Sequence[Remote], folder: Path) -> list[Remote]:
    """Those of the files that are not in the folder."""
    return [file for file in files if not (folder / file.path).exists()]


def marker(task: str, folder: Path) -> Path:
    """The file that says that the data of a task in a folder are a miniature, where they are."""
    return folder / f"{task}.miniature.txt"


def fetch(task: str, files: Sequence[Remote], folder: Path) -> None:
    """Brings what a task reads into a folder; what is there stays as it is. Prints what is done and what remains to do.

    Raises:
        UserError: the task reads no public files; or some of them have to be fetched by hand, or could not be fetched: the message
            says which, where to look, and where to put them. The others are there by then.
    """
    if not files:
        raise UserError(f"download: the task {task!r} needs no files from elsewhere")
    if marker(task, folder).exists():
        raise UserError(f"{folder} holds a miniature of {task}; fetch the real files into another folder")
    folder.mkdir(parents=True, exist_ok=True)
    by_hand, tried = [], set()
    with alone(folder / task):
        for file in files:
            if (folder / file.path).exists():
                print(f"{folder / file.path} is there already")
                continue
            if file.url is None:
                by_hand.append(f"{file.path} has no stable address: {file.advice(folder)}")
                continue
            if file.url in tried:  # an archive that holds several of them, and did not come
                continue
            tried.add(file.url)
            try:
                _fetch(file, folder)
            except _Failed as error:
                by_hand.append(f"{file.url}: {error}; {file.advice(folder)}")
    if by_hand:
        raise UserError(f"{task} is not complete in {folder}:\n" + "\n".join(f"- {said}" for said in by_hand))
    print(f"{task} is complete: --task {task} --data_dir {folder}")


class _Failed(Exception):
    """A download that did not end well, in words."""


def _fetch(file: Remote, folder: Path) -> None:
    try:
        import pooch
        import requests
    except ImportError as error:
        raise MissingPackage("download", error.name or "pooch", "download") from None
    name = PurePosixPath(file.url).name
    target = folder / file.path if file.unpack is None else folder / f".{name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if file.size is not None and file.size > free:
        raise UserError(f"{folder}: {name} has {_gib(file.size)} GiB, and {_gib(free)} GiB are free there")
    print(f"{file.url}" + ("" if file.size is None else f" ({_gib(file.size)} GiB)"))
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(file.url, file.hash, target.name, target.parent, downloader=_Resuming(target))
    except requests.RequestException as error:
        again = " (start again, and it goes on from where it was cut off)" if _Resuming(target).part.exists() else ""
        raise _Failed(f"{error}{again}") from None
    except ValueError:  # pooch: another hash
        raise _Failed(f"what came from there has not the known checksum ({file.hash}) and is thrown away") from None
    if file.unpack is not None:
        try:
            unpack(target, folder, file.unpack)
        except UserError as error:
            raise _Failed(f"{error} (to fetch it anew, remove {target})") from None
        target.unlink()
        if not (folder / file.path).exists():
            raise _Failed(f"the archive was unpacked, but holds no {file.path}")


class _Resuming:
    """A downloader for pooch that goes on where an earlier call was cut off, if the file at the address is still the same."""

    def __init__(self, target: Path) -> None:
        self.part, self.version = (target.with_name(f".{target.name}.{end}") for end in ("part", "version"))

    def __call__(self, url: str, output: str, _pooch: object) -> None:
        import requests

        have = self.part.stat().st_size if self.part.exists() and self.version.exists() else 0
        # If-Range: the rest, if nothing has changed, else all of it.
        asked = {"Range": f"bytes={have}-", "If-Range": self.version.read_text()} if have else {}
        # Bytes as they are: compressed on the way, they could not be counted.
        headers = {"Accept-Encoding": "identity"} | asked
        with requests.get(url, headers=headers, stream=True, timeout=SECONDS) as answer:
            if have and answer.status_code == requests.codes.range_not_satisfiable:  # all of it was there, or too much
                self.forget()
                return self(url, output, _pooch)
            answer.raise_for_status()
            resumed = answer.status_code == requests.codes.partial_content
            if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise requests.ConnectionError(f"asked for the bytes from {have} on, and others came")
            have = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            tag = answer.headers.get("ETag", "")
            version = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
            if version:
                self.version.write_text(version)
            else:
                self.version.unlink(missing_ok=True)
            progress = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=PurePosixPath(url).name)
            with progress as bar, open(self.part, "ab" if resumed else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    have += file.write(block)
                    bar.update(len(block))
        if total is not None and have != total:
            raise requests.ConnectionError(f"{have} of {total} bytes came")
        os.replace(self.part, output)
        self.forget()

    def forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path, below: str = "") -> None:
    """Unpacks a .zip or .tar, compressed or not, into a folder: whole, or not at all.

    Args:
        below: folder in that one, unless all that the archive holds lies in a folder of that name already.

    Raises:
        UserError: no such archive, or a damaged one; something that has no place in one: a name that leads out of the folder, a
            link, a device, more than `MOST_TIMES` the archive's size; what is there already; more than the disk has room for.
    """
    print(f"unpacking {archive.name.removeprefix('.')} to {folder / below}")
    with adding(folder) as aside:
        try:
            with _opened(archive) as (members, extract):
                found = list(_checked(archive, members, folder))
                held = {path.parts[0] for member in found if (path := PurePosixPath(member.name)).parts}
                place = aside if held == {below} else aside / below
                for member in tqdm(found, unit=" files", desc="unpacking"):
                    extract(member.source, place)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{archive}: cannot be unpacked: {str(error) or type(error).__name__}") from None


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    plain: bool  # a file or a folder
    source: object


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterable[_Member], Callable]]:
    """What an archive holds, and what extracts one of it to a folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            # The upper bits of the attributes are the type of a Unix file: 8 a file, 4 a folder, 0 unknown.
            types = ((one, one.external_attr >> 28) for one in packed.infolist())
            yield (_Member(one.filename, one.file_size, what in (0, 4, 8), one) for one, what in types), packed.extract
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed:
            # The filter looks at names once more, and gives files no owner and no rights but the usual ones.
            extract = partial(packed.extract, filter="data")
            yield (_Member(one.name, one.size, one.isfile() or one.isdir(), one) for one in packed), extract
    else:
        raise UserError(f"{archive}: neither a .zip nor a .tar archive, or a truncated one")


def _checked(archive: Path, members: Iterable[_Member], folder: Path) -> Iterator[_Member]:
    total, packed, free = 0, archive.stat().st_size, shutil.disk_usage(folder).free
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{archive}: refused: {member.name!r} leads out of the folder it is unpacked to")
        if not member.plain:
            raise UserError(f"{archive}: refused: {member.name!r} is neither a file nor a folder")
        total += member.size
        if total > MOST_TIMES * packed:
            raise UserError(f"{archive}: refused: its {packed} bytes unpack to more than {MOST_TIMES} times as many")
        if total > free:
            raise UserError(f"{folder}: {archive.name} unpacks to more than the {_gib(free)} GiB that are free there")
        yield member


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"
