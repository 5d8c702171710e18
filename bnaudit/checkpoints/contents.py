"""What stands in a checkpoint file, read without torch, without code, and no more than is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bnaudit.checkpoints.formats import Format

CHUNK = 1 << 22
"""Elements of a tensor that are compared or counted at once."""


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor in a file: its type (as NumPy names it, or "bfloat16"), its shape, and its values.

    `values()` reads it: mapped from the file where it lies there as it is, so that a large tensor
    costs no memory until it is used; bfloat16 comes as float32, everything else in its own type.
    """

    dtype: str
    shape: tuple[int, ...]
    values: Callable[[], NDArray[Any]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> FileTensor:
        """One that is in memory."""
        return cls(str(array.dtype), array.shape, lambda: array)

    def chunks(self) -> Iterator[NDArray[Any]]:
        """The values, flat and in the order of rows, at most `CHUNK` at once."""
        values = self.values()
        flat = values.reshape(-1)
        for start in range(0, max(flat.size, 1), CHUNK):
            yield flat[start : start + CHUNK]


@dataclass(frozen=True)
class ModuleFacts:
    """What a pickled module says of itself; None where it does not."""

    kind: str | None = None
    eps: float | None = None
    momentum: float | None = None
    tracks: bool | None = None


@dataclass(frozen=True, eq=False)
class Contents:
    """A checkpoint file: the tensors of its weights, by name in the order of the file.

    `key`: the place of the weights in the file, "" for the top level; `others`: other places that
    would have done. `modules`: of a file that holds a whole pickled model, what its modules say, by
    name. `steps`: how many steps its optimiser made, where the file says so. `bytes`: its size.
    """

    path: Path
    format: Format
    bytes: int
    tensors: Mapping[str, FileTensor]
    key: str = ""
    others: tuple[str, ...] = ()
    modules: Mapping[str, ModuleFacts] = field(default_factory=dict)
    steps: int | None = None
