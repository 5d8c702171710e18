"""Weights into a model of transformers: renamed as it renames them, in one file or several."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bnaudit.checkpoints.layout import find_state_dict
from bnaudit.checkpoints.load import LoadReport
from bnaudit.checkpoints.messages import first_line, input_error
from bnaudit.checkpoints.names import describe_mismatch, match_names
from bnaudit.checkpoints.opening import opened
from bnaudit.checkpoints.read import Checkpoint, read_checkpoint
from bnaudit.targets.hugging_face import INDEX, names_in_model


def load_folder_weights(
    model: nn.Module,
    path: Path,
    *,
    key: str | None = None,
    allow_mismatch: bool = False,
    trust_pickle: bool = False,
) -> LoadReport:
    """Load the weights at `path` into a model of transformers, in place; as `load_checkpoint`.

    `path` may be the index of weights in several files. Names in the file are those that the model
    has today, or those that transformers renames to them. The SHA-256 of several files is that of
    the lines `sha256sum` prints for the index and its shards, in the order of their names.

    Raises `InputError` as `load_checkpoint`, and for an index or shards that are not whole.
    """
    checkpoint = read_weights(path, trust_pickle=trust_pickle)
    weights = find_state_dict(checkpoint, key=key)
    in_model = names_in_model(model, weights.tensors)
    in_file = {new: name for name, new in in_model.items()}
    renamed = {new: weights.tensors[name] for new, name in in_file.items()}
    match = match_names(renamed, model.state_dict())
    match = replace(
        match,
        sources={own: in_file[name] for own, name in match.sources.items()},
        unexpected=tuple(in_file[name] for name in match.unexpected),
        ignored=tuple(in_file.get(name, name) for name in match.ignored),
    )
    if not match.tensors or not (match.complete or allow_mismatch):
        raise input_error(path, describe_mismatch(match))
    model.load_state_dict(match.tensors, strict=False)
    return LoadReport.of(path, checkpoint, weights, match)


def read_weights(path: Path, *, trust_pickle: bool = False) -> Checkpoint:
    """The weights at `path`, a checkpoint file or the index of several. Raises `InputError`."""
    if not path.name.endswith(INDEX):
        return read_checkpoint(path, trust_pickle=trust_pickle)
    with opened(path) as file:
        text = file.read()
    names = _shards(path, text)
    shards = [read_checkpoint(path.with_name(name)) for name in names]
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards:
        tensors |= find_state_dict(shard).tensors
    lines = {path.name: hashlib.sha256(text).hexdigest()}
    lines |= {shard.path.name: shard.sha256 for shard in shards}
    summed = "".join(f"{lines[name]}  {name}\n" for name in sorted(lines))
    digest = hashlib.sha256(summed.encode()).hexdigest()
    _check_whole(path, text, tensors)
    return Checkpoint(path, shards[0].format, digest, tensors)


def _shards(path: Path, text: bytes) -> list[str]:
    """The names of the files in the index, each once."""
    try:
        names = sorted(set(_weight_map(text).values()))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise input_error(
            path, f"not an index of shards ({first_line(error)}); copy or download it again"
        ) from None
    for name in names:
        if Path(name).name != name:
            raise input_error(path, f"names a shard outside its folder: {name}; check the file")
    if not names:
        raise input_error(path, "names no shards; copy or download it again")
    return names


def _check_whole(path: Path, text: bytes, tensors: dict[str, torch.Tensor]) -> None:
    lost = [name for name in _weight_map(text) if name not in tensors]
    if lost:
        raise input_error(
            path,
            f"{len(lost)} tensors are not in the shards it names, {lost[0]} for one; copy or "
            "download them again",
        )


def _weight_map(text: bytes) -> dict[str, str]:
    names: dict[str, str] = json.loads(text)["weight_map"]
    return names
