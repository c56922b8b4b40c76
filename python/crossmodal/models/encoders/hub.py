"""Checkpoints from the model hub: fetched once as plain files, read from the cache from then on."""

from __future__ import annotations

import json
import socket
import urllib.parse
import urllib.request
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from crossmodal.errors import UserError

SMALL_FILES = ("preprocessor_config.json", "tokenizer*", "vocab*", "merges.txt", "*.model")
SMALL_FILES += ("special_tokens_map.json", "added_tokens.json")
INDEX = "model.safetensors.index.json"  # which shard holds which tensor
WEIGHTS = ("model*.safetensors", INDEX)
SECONDS_TO_CONNECT = 5.0
_REMEDY = (
    "On a machine without access to the hub, copy the checkpoint (config.json, model.safetensors, tokenizer files) "
    "and give its folder"
)


def fetch(name: str, *, weights: bool = True) -> Path:
    """The folder of a checkpoint by its hub name (``organisation/model``), from the cache if it is there.

    Args:
        name: the name on the hub; ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` count as everywhere.
        weights: whether the safetensors weights are wanted too; files in other formats never are.

    Raises:
        UserError: there is no such checkpoint, or it is neither in the cache nor to be had; says which.
    """
    # In this order, so that config.json tells that the small files are there, and whole weights that everything is.
    stages = [SMALL_FILES, ("config.json",), *([WEIGHTS] if weights else [])]
    try:
        folder = _cached(name, [pattern for stage in stages for pattern in stage], weights)
        if folder is None:
            _check_connection(name)
            for stage in stages:
                folder = Path(snapshot_download(name, allow_patterns=list(stage)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"encoder {name!r} is neither a local folder nor a model of the hub {constants.ENDPOINT}, or one that needs a token "
            f"(HF_TOKEN): {_first_line(error)}"
        ) from error
    except GatedRepoError as error:
        raise UserError(f"encoder {name!r} is open to people with a token alone (HF_TOKEN): {error}") from error
    except OSError as error:
        raise UserError(
            f"encoder {name!r} is not a local folder and could not be had from the model hub ({_first_line(error)}). {_REMEDY}"
        ) from error
    if weights and not any(folder.glob("*.safetensors")):
        raise UserError(f"encoder {name!r} has no weights in safetensors format on the hub; other formats are not read")
    return folder


def _cached(name: str, patterns: list[str], weights: bool) -> Path | None:
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    whole = (folder / "config.json").is_file() and (not weights or _weights_are_whole(folder))
    return folder if whole else None  # what an interruption left is fetched again


def _weights_are_whole(folder: Path) -> bool:
    """Whether there is one file of weights, or every shard that the index names."""
    if not (folder / INDEX).is_file():
        return (folder / "model.safetensors").is_file()
    try:
        shards = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):  # damaged
        return False
    return all((folder / shard).is_file() for shard in shards)


def _check_connection(name: str) -> None:
    """One attempt to connect: the hub's client would repeat its own for half a minute. Through a proxy the client must try."""
    problem = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None
    if problem is None and not urllib.request.getproxies():
        endpoint = urllib.parse.urlsplit(constants.ENDPOINT)
        port = endpoint.port or (443 if endpoint.scheme == "https" else 80)
        try:
            socket.create_connection((endpoint.hostname, port), timeout=SECONDS_TO_CONNECT).close()
        except OSError as error:
            problem = f"{constants.ENDPOINT} cannot be reached: {error}"
    if problem is not None:
        raise UserError(
            f"encoder {name!r} is not a local folder, is not in the cache ({constants.HF_HUB_CACHE}), and could not be had "
            f"from the model hub ({problem}). {_REMEDY}"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
