"""The JSON file beside a recalibrated checkpoint: where it comes from, and the old statistics."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bnaudit._version import __version__
from bnaudit.checkpoints.messages import input_error
from bnaudit.checkpoints.stored import StoredTensor, decode

SUFFIX = ".bnaudit.json"
_SCHEMA = 1


@dataclass(frozen=True)
class FileInfo:
    """A file's name without its folder, SHA-256 and size in bytes."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Sidecar:
    """What is known of a recalibrated checkpoint.

    `source`, `target`: the file it was made of, and itself. `key`: of the state dict in it.
    `in_place`: whether all bytes but those of the tensors (and an archive's checksums) are the
    source's. `before`: the old values by name in the file; None for one that was not there.
    `provenance`: what the caller tells about the new values, any JSON.
    """

    source: FileInfo
    target: FileInfo
    key: str
    in_place: bool
    before: Mapping[str, StoredTensor | None]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tool: str = __version__

    def to_json(self, previous: Sidecar | None = None) -> bytes:
        """The document, UTF-8. `previous`: the sidecar of the file that is being replaced."""
        document = self._document()
        if previous is not None:
            document["previous"] = previous._document()
        return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "replace")

    def _document(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "tool": self.tool,
            "source": vars(self.source),
            "target": vars(self.target),
            "key": self.key,
            "in_place": self.in_place,
            "provenance": dict(self.provenance),
            "before": {name: _stored_json(value) for name, value in self.before.items()},
        }


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of the checkpoint `path` is."""
    return path.with_name(path.name + SUFFIX)


def read_sidecar(path: Path, sha256: str) -> Sidecar:
    """The sidecar of the checkpoint `path`, whose content has this SHA-256.

    Raises `InputError` where there is none, where it is damaged or of a newer version, and where it
    belongs to other content than the file's.
    """
    file = sidecar_of(path)
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise input_error(
            path,
            f"has no {file.name} beside it, which keeps the old statistics; nothing to restore",
        ) from None
    except OSError as error:
        raise input_error(file, f"cannot be read ({error.strerror}); check its mode") from None
    except (ValueError, RecursionError):
        raise _damaged(file) from None
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise _damaged(file)
    if document["schema"] != _SCHEMA:
        raise input_error(
            file, f"has schema {document['schema']}, where {_SCHEMA} is known; update bnaudit"
        )
    try:
        found = [_parsed(document)]
        if "previous" in document:
            found.append(_parsed(document["previous"]))
    except (LookupError, TypeError, ValueError, AttributeError, binascii.Error):
        raise _damaged(file) from None
    for sidecar in found:
        if sidecar.target.sha256 == sha256:
            return sidecar
    raise input_error(
        file,
        f"belongs to other content than {path.name} has now (its SHA-256 differs); "
        "the file was changed or replaced since, and is left as it is",
    )


def _damaged(file: Path) -> Exception:
    return input_error(file, "not a sidecar that bnaudit wrote, or damaged; recalibrate anew")


def _parsed(document: Mapping[str, Any]) -> Sidecar:
    key, provenance, tool = document["key"], document["provenance"], document["tool"]
    if not isinstance(key, str) or not isinstance(provenance, dict) or not isinstance(tool, str):
        raise TypeError
    return Sidecar(
        source=_file_info(document["source"]),
        target=_file_info(document["target"]),
        key=key,
        in_place=bool(document["in_place"]),
        before={str(name): _stored(value) for name, value in document["before"].items()},
        provenance=provenance,
        tool=tool,
    )


def _file_info(value: Mapping[str, Any]) -> FileInfo:
    return FileInfo(str(value["name"]), str(value["sha256"]), int(value["bytes"]))


def _stored_json(value: StoredTensor | None) -> dict[str, Any] | None:
    if value is None:
        return None
    data = base64.b64encode(value.data).decode("ascii")
    dtype = str(value.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(value.shape), "data": data}


def _stored(value: Mapping[str, Any] | None) -> StoredTensor | None:
    if value is None:
        return None
    dtype = getattr(torch, value["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise TypeError
    stored = StoredTensor(dtype, tuple(value["shape"]), base64.b64decode(value["data"]))
    decode(stored.data, stored.dtype, stored.shape)  # the bytes fill the shape
    return stored
