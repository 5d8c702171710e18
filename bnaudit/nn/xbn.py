"""XBN blocks: one BatchNorm layer of each residual block gives way to a norm without a batch.

Huang 2022 (arXiv:2203.10778), section 4: estimation shift accumulates over stacked BatchNorm
layers, and a batch-free norm (Group, Layer or Instance Norm) between them blocks it. What is
replaced where is as in the authors' published code.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.nn.conversion import Conversion
from bnaudit.nn.replacing import batch_norms, replace
from bnaudit.nn.xbn_blocks import Part, Place, Position, places_of
from bnaudit.nn.xbn_norms import batch_free
from bnaudit.nn.xbn_outline import STEPS
from bnaudit.nn.xbn_reading import Example, Unread, read, read_by

Norm = Literal["group", "layer", "instance"]

# What the authors take: 64 in ResNets, 16 in MobileNetV2, 29 in ShuffleNetV2 at width 1.0.
_GROUPS: dict[Part, int] = {"stem": 64, "residual": 64, "depthwise": 16, "split depthwise": 29}


def convert_xbn(
    model: nn.Module,
    *,
    norm: Norm = "group",
    groups: int | None = None,
    position: Position = "P2",
    stem: bool = True,
    example: Example | None = None,
) -> Conversion:
    """Replace one BatchNorm layer of each residual block by a batch-free norm, in place.

    The model has to be trained, or trained on, afterwards: a norm without a batch computes
    something else. γ, β (the same parameters, so an optimiser keeps them), eps, device, dtype,
    hooks and training mode are carried over; the running statistics of the replaced layers are
    dropped. All other layers stay the same objects.

    The blocks are found by structure, not by names: by `torch.fx`, where a forward cannot be traced
    by one run on noise, and where that fails too in the modules inside, in the order of
    registration. With `example`, an input of the model or a tuple or a dict of its arguments, by
    one run on it. The runs are in `eval()` and leave the statistics alone. Where blocks may stand
    in a module that could not be read, the conversion's `notes` say which and why.

    - residual block: two branches that part at one point and meet in an addition, one with two or
      more convolutions in a row, the other with at most one. `position` counts the norms of the
      longer branch: with three P1, P2, P3 are the first, second and third; with two P1 and P2 are
      the first and P3 the second; with more P2 is the middle one. A norm after the addition counts
      where the branch ends with a convolution without one. The shortcut's norm stays.
    - depthwise block: the norm after each depthwise convolution, whatever `position`.
    - stem: where the first block is a residual one, the last norm before the network first
      branches, unless `stem` is False.

    `norm`: "group" (GroupNorm), "layer" (one group) or "instance" (as many groups as channels).
    `groups`: the number of groups of "group", at most the number of channels is taken. By default
    64 in residual blocks and the stem, 16 after depthwise convolutions and 29 in blocks that
    concatenate their branches, or the largest number below that divides the channels.

    Raises ValueError where the model has no such block, where `groups` does not divide the
    channels of a layer, an option is not among its choices, or `example` does not go through;
    TypeError for a layer that cannot be replaced (a subclass whose forward does more than BatchNorm
    and its submodules, a lazy or parametrised layer). The model is unchanged then.
    """
    _check(norm, groups, position)
    layers = batch_norms(model, "xbn")
    reading = read(model) if example is None else read_by(model, example)
    places = places_of(reading.stretches, position)
    hidden = _hidden(model, reading.unread, places)
    if not places:
        raise ValueError(
            "xbn: no residual block (two convolutions with BatchNorm that a shortcut goes around) "
            f"and no BatchNorm after a depthwise convolution found in the model{_told(hidden)}"
        )
    if position != "P2" and not any(place.part == "residual" for place in places):
        raise ValueError(
            f"xbn: position {position}: the model has depthwise blocks only, of which the norm "
            "after the depthwise convolution is replaced; leave `position` out"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    parts: dict[nn.Module, Part] = {}
    for place in places:
        if place.part != "stem" or (stem and not _inside(place, hidden)):
            parts.setdefault(modules[place.module], place.part)
    conversion = replace(
        model,
        "xbn",
        [(name, layer) for name, layer in layers if layer in parts],
        lambda name, layer: batch_free(
            layer, _groups(norm, groups, Place(name, parts[layer]), layer.num_features)
        ),
    )
    notes = (f"xbn: blocks may have been passed over{_told(hidden)}",) if hidden else ()
    return dataclasses.replace(conversion, notes=notes)


def _hidden(model: nn.Module, unread: list[Unread], places: list[Place]) -> list[Unread]:
    """The modules not read that have layers for a block and are not known to have one inside."""
    hidden: list[Unread] = []
    for one in reversed(unread):  # the innermost first
        norms = [
            isinstance(part, _BatchNorm)
            for part in model.get_submodule(one.module).modules()
            if isinstance(part, STEPS)
        ]
        known = [place.module for place in places if place.part != "stem"] + [
            other.module for other in hidden
        ]
        if (
            norms.count(True) > 1
            and norms.count(False) > 1
            and not any(name.startswith(one.within) for name in known)
        ):
            hidden.insert(0, one)
    return hidden


def _inside(place: Place, hidden: list[Unread]) -> bool:
    return any(place.module.startswith(one.within) for one in hidden)


def _told(hidden: list[Unread]) -> str:
    if not hidden:
        return ""
    more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
    return f"; not read: {hidden[0]}{more}; give `example`, an input of the model"


def _check(norm: str, groups: int | None, position: str) -> None:
    for option, value, choices in (
        ("norm", norm, get_args(Norm)),
        ("position", position, get_args(Position)),
    ):
        if value not in choices:
            raise ValueError(f"xbn: {option} {value!r}: give one of {', '.join(choices)}")
    if groups is None:
        return
    if norm != "group":
        raise ValueError(f"xbn: groups belong to norm 'group', not to {norm!r}: leave them out")
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ValueError(f"xbn: groups {groups!r}: give a whole number from 1")


def _groups(norm: Norm, groups: int | None, place: Place, channels: int) -> int:
    if norm == "layer":
        return 1
    if norm == "instance":
        return channels
    if groups is None:
        return _largest_divisor(channels, _GROUPS[place.part])
    taken = min(groups, channels)
    if channels % taken:
        raise ValueError(
            f"xbn: groups {groups} do not divide the {channels} channels of {place.module}: give "
            f"{_largest_divisor(channels, taken)}, or leave `groups` out"
        )
    return taken


def _largest_divisor(channels: int, most: int) -> int:
    return max(count for count in range(1, min(channels, most) + 1) if channels % count == 0)
