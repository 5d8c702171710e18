"""What `leakage` is asked for: groups, sizes of the normalisation batch, draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
from torch import Tensor

from bnaudit.errors import InputError
from bnaudit.targets.factories import load_factory
from bnaudit.verbs.leakage_pool import By
from bnaudit.verbs.sweep_values import checked_values

SAMPLES = 1000
"""How many samples are drawn unless told otherwise: each is run a dozen times."""

DRAWS = 4
"""Shuffles, and random batches of each grouping."""

DEFAULT_SIZE = 32

CLASS, SOURCE, ORDER = "class", "source", "order"


@dataclass(frozen=True)
class Wanted:
    """What is to be tried; `by` None stands for all that the data tell.

    `functions`: those that name groups, by their names in `by`. `values`: sizes, ascending.
    """

    by: tuple[str, ...] | None = None
    functions: dict[str, By] = field(default_factory=dict)
    values: tuple[int, ...] = ()
    train_batch_size: int | None = None
    group_size: int | None = None
    draws: int = DRAWS

    def __post_init__(self) -> None:
        if self.values and self.group_size is not None:
            raise InputError(
                "--values and --group-size exclude each other: both say how many samples are "
                "normalised together"
            )
        if self.group_size and self.train_batch_size and self.train_batch_size % self.group_size:
            raise InputError(
                f"--group-size {self.group_size} does not divide --train-batch-size "
                f"{self.train_batch_size}"
            )
        for name in self.by or ():
            if name not in (CLASS, SOURCE, ORDER) and name not in self.functions:
                raise InputError(
                    f"--by {name}: give class, source, order, or path/file.py:fn, called with a "
                    "batch, which gives the group of each of its samples"
                )

    def sizes(self, given: int | None) -> tuple[int, ...]:
        """Of the normalisation batch, ascending; `given`: the size of the reader's batches."""
        return self.values or (self.group_size or self.train_batch_size or given or DEFAULT_SIZE,)


def wanted_of(
    by: Sequence[str | By] | str | By | None,
    values: Sequence[float] | None,
    train_batch_size: int | None,
    group_size: int | None,
    draws: int,
) -> Wanted:
    """What a caller gives, checked. Raises `InputError` that names what cannot be."""
    names, functions = _named(by)
    return Wanted(
        names,
        functions,
        _sizes(values),
        _whole("train_batch_size", train_batch_size),
        _whole("group_size", group_size, least=2),
        _whole("draws", draws) or DRAWS,
    )


def _sizes(values: object) -> tuple[int, ...]:
    """Whole numbers in any sequence, also of NumPy or PyTorch."""
    if values is None:
        return ()
    listed = values.tolist() if isinstance(values, np.ndarray | Tensor) else values
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise InputError(f"values is {values!r}: give a list of sizes, such as [16, 64]")
    plain = [one.item() if isinstance(one, np.generic) else one for one in listed]
    return tuple(int(size) for size in checked_values("batch-size", plain))


def _whole(what: str, number: object, least: int = 1) -> int | None:
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, Integral) or int(number) < least:
        words = "a positive number" if least == 1 else f"a whole number, {least} or more"
        raise InputError(f"{what} is {number!r}: give {words}")
    return int(number)


def _named(
    by: Sequence[str | By] | str | By | None,
) -> tuple[tuple[str, ...] | None, dict[str, By]]:
    """The names of what is grouped by, and the functions among them."""
    if by is None:
        return None, {}
    given = [by] if isinstance(by, str) or callable(by) else list(by)
    functions: dict[str, By] = {}
    names: list[str] = []
    for one in given:
        if isinstance(one, str):
            name = one
            if ":" in one and one not in functions:
                functions[one] = load_factory(one, option="--by")
        else:
            name = getattr(one, "__name__", type(one).__name__)
            if name in functions:
                raise InputError(
                    f"by has two functions called {name}: give them names of their own"
                )
            functions[name] = one
        names.append(name)
    return tuple(dict.fromkeys(names)) or None, functions
