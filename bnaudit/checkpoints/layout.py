"""Where in a checkpoint that has been loaded the weights stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bnaudit.checkpoints.messages import first_line, input_error
from bnaudit.checkpoints.read import Checkpoint
from bnaudit.checkpoints.search import Tree, find_weights


@dataclass(frozen=True, eq=False)
class StateDict:
    """The weights found in a checkpoint.

    `tensors`: by the names in the file, without entries that are not tensors. `key`: the dotted
    path of the place in the checkpoint, "" for the top level. `others`: paths of the other places
    that would have done, in the order of preference. `metadata`: the module versions that
    `nn.Module.state_dict` keeps beside the tensors, by module name; None where the file has none.
    """

    tensors: dict[str, Tensor]
    key: str
    others: tuple[str, ...]
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)


def find_state_dict(checkpoint: Checkpoint, *, key: str | None = None) -> StateDict:
    """The state dict in a checkpoint, chosen as `find_weights` says.

    Raises `InputError` where there is no state dict, or none at `key`.
    """
    found = find_weights(checkpoint.content, _LOADED, checkpoint.path, key=key)
    metadata = getattr(found.entries, "_metadata", None)
    return StateDict(
        tensors={
            name: value.detach()
            for name, value in found.entries.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        },
        key=found.key,
        others=found.others,
        metadata=metadata if isinstance(metadata, Mapping) else None,
    )


def _entries_of(module: nn.Module, path: Path) -> Mapping[str, Any]:
    try:
        return module.state_dict()
    except Exception as error:  # a module of another version may lack what this one needs
        what = f"{type(module).__name__} cannot give its weights ({first_line(error)})"
        raise input_error(
            path, f"{what}; save its state_dict() with the library it needs"
        ) from None


_LOADED = Tree(
    dimensions=lambda value: value.dim() if isinstance(value, Tensor) else None,
    is_module=lambda value: isinstance(value, nn.Module),
    entries_of=_entries_of,
    kind=lambda value: type(value).__name__,
)
