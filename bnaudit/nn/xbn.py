"""XBN blocks: one BatchNorm layer of each residual block gives way to a norm without a batch.

Huang 2022 (arXiv:2203.10778), section 4: estimation shift accumulates over stacked BatchNorm
layers, and a batch-free norm (Group, Layer or Instance Norm) between them blocks it. What is
replaced where is as in the authors' published code.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.nn.conversion import Conversion, Replaced
from bnaudit.nn.xbn_blocks import Part, Place, Position, places_of
from bnaudit.nn.xbn_norms import batch_free, check_replaceable
from bnaudit.nn.xbn_outline import outlines

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
) -> Conversion:
    """Replace one BatchNorm layer of each residual block by a batch-free norm, in place.

    The model has to be trained, or trained on, afterwards: a norm without a batch computes
    something else. γ, β (the same parameters, so an optimiser keeps them), eps, device, dtype,
    hooks and training mode are carried over; the running statistics of the replaced layers are
    dropped. All other layers stay the same objects.

    The blocks are found by structure (`torch.fx`; where a module cannot be traced, its children in
    the order of registration), not by names:

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
    channels of a layer, or an option is not among its choices; TypeError for a layer that cannot be
    replaced (a subclass whose forward does more than BatchNorm and its submodules, a lazy or
    parametrised layer). The model is unchanged then.
    """
    _check(norm, groups, position)
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ValueError("xbn: the model has no BatchNorm layer")
    places = places_of(outlines(model), position)
    if not places:
        raise ValueError(
            "xbn: no residual block (two convolutions with BatchNorm that a shortcut goes around) "
            "and no BatchNorm after a depthwise convolution found in the model"
        )
    if position != "P2" and not any(place.part == "residual" for place in places):
        raise ValueError(
            f"xbn: position {position}: the model has depthwise blocks only, of which the norm "
            "after the depthwise convolution is replaced; leave `position` out"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    replacements: dict[nn.Module, nn.Module] = {}
    names: dict[nn.Module, str] = {}
    for place in places:
        before = modules[place.module]
        if (place.part == "stem" and not stem) or before in replacements:
            continue
        assert isinstance(before, _BatchNorm)
        check_replaceable(before, place.module)
        count = _groups(norm, groups, place, before.num_features)
        replacements[before] = batch_free(before, count)
        names[before] = place.module
    return _replace(model, replacements, names)


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


def _replace(
    model: nn.Module, replacements: dict[nn.Module, nn.Module], names: dict[nn.Module, str]
) -> Conversion:
    """Put the replacements in, under every name that a replaced layer has."""
    before = [module for module in model.modules() if module in replacements]
    for parent in list(model.modules()):
        for child, module in parent._modules.items():
            if module in replacements:
                parent._modules[child] = replacements[module]
    replaced = tuple(
        Replaced(names[layer], _shown(layer), _shown(replacements[layer])) for layer in before
    )
    return Conversion(model, replaced)


def _shown(module: nn.Module) -> str:
    if isinstance(module, nn.GroupNorm):
        return f"{type(module).__name__}({module.num_groups}, {module.num_channels})"
    assert isinstance(module, _BatchNorm)
    return f"{type(module).__name__}({module.num_features})"
