"""Saving a checkpoint's content anew, where its bytes cannot be patched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bnaudit.checkpoints.messages import first_line, input_error
from bnaudit.checkpoints.plain_data import real_data
from bnaudit.checkpoints.read import Checkpoint
from bnaudit.checkpoints.search import walk
from bnaudit.checkpoints.stored import StoredTensor
from bnaudit.errors import InputError


def stored_in(checkpoint: Checkpoint, key: str, names: Collection[str]) -> dict[str, StoredTensor]:
    """The tensors `names` of the state dict at `key`, as loaded; without those that are missing."""
    entries = _entries(checkpoint, key)
    state = entries.state_dict() if isinstance(entries, nn.Module) else entries
    found = {name: state[name] for name in names if isinstance(state.get(name), Tensor)}
    return {name: StoredTensor.of(_dense(tensor)) for name, tensor in found.items()}


def resave(
    checkpoint: Checkpoint,
    key: str,
    values: Mapping[str, StoredTensor],
    copy: Path,
    *,
    removed: Collection[str] = (),
) -> None:
    """Write the content of `checkpoint` to `copy`, with `values` and without `removed`.

    The format stays. A tensor that shared its memory with another one gets its own; `checkpoint`'s
    content is modified. Raises `InputError` where the content cannot be saved.
    """
    entries = _entries(checkpoint, key)
    for name, value in values.items():
        if isinstance(entries, nn.Module):
            _set_buffer(entries, name, value.tensor(), checkpoint.path)
        else:
            entries[name] = value.tensor()
    for name in removed:
        if not isinstance(entries, nn.Module):
            entries.pop(name, None)
    content: Any = checkpoint.content
    if checkpoint.format == "safetensors":
        with safe_open(checkpoint.path, framework="pt") as old:
            metadata = old.metadata()
        save_file(content, copy, metadata=metadata)
        return
    try:
        torch.save(
            real_data(content), copy, _use_new_zipfile_serialization=checkpoint.format == "zip"
        )
    except OSError:
        raise
    except RuntimeError as error:  # what torch makes of a full disk, too
        raise OSError(None, first_line(error)) from None
    except Exception as error:  # an object of the file that can be loaded and not saved
        raise input_error(
            checkpoint.path,
            f"cannot be saved anew ({first_line(error)}); save its state dict alone in Python",
        ) from None


def _entries(checkpoint: Checkpoint, key: str) -> Any:
    found = walk(checkpoint.content, key)
    if isinstance(found, (nn.Module, dict)):
        return found
    raise input_error(checkpoint.path, f"no state dict at {key!r} that can be written to")


def _set_buffer(module: nn.Module, name: str, value: Tensor, path: Path) -> None:
    owner, _, leaf = name.rpartition(".")
    try:
        module.get_buffer(name)
        setattr(module.get_submodule(owner), leaf, value)
    except AttributeError:
        raise _no_buffer(path, name) from None


def _no_buffer(path: Path, name: str) -> InputError:
    return input_error(
        path, f"its pickled model has no buffer {name}; save its state_dict() in Python instead"
    )


def _dense(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()
