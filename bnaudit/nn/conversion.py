"""What a conversion has done to a model, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Replaced:
    """One layer that a conversion changed: its name, and what stood and stands there, as printed.

    A layer that is registered under several names appears once, under its first.
    """

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Conversion:
    """The converted model, and its changed layers in the order of registration.

    `model` is the given one, changed in place; only where it is itself a layer that had to be
    replaced is it another object. `notes` say what the conversion could not see to.
    """

    model: nn.Module
    replaced: tuple[Replaced, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        width = max((len(one.name) for one in self.replaced), default=0)
        layers = (f"{one.name:<{width}}  {one.before} → {one.after}" for one in self.replaced)
        return "\n".join([*layers, *self.notes])
