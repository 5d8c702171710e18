"""One front end for all conversions: `convert(model, kind, …)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.nn.batch_group import (
    BatchGroupNorm,
    BatchGroupNorm1d,
    BatchGroupNorm2d,
    BatchGroupNorm3d,
)
from bnaudit.nn.conversion import Conversion
from bnaudit.nn.example_weighing import (
    ExampleWeighingBatchNorm1d,
    ExampleWeighingBatchNorm2d,
    ExampleWeighingBatchNorm3d,
)
from bnaudit.nn.frozen import freeze, hold, is_frozen
from bnaudit.nn.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from bnaudit.nn.grouped import pooled_channels
from bnaudit.nn.replacing import carried_over, make, replace_batch_norms
from bnaudit.nn.xbn import convert_xbn

Kind = Literal["ghost", "batch-group", "example-weighing", "frozen", "sync", "xbn"]

_GHOST = {
    nn.BatchNorm1d: GhostBatchNorm1d,
    nn.BatchNorm2d: GhostBatchNorm2d,
    nn.BatchNorm3d: GhostBatchNorm3d,
}
_BATCH_GROUP = {
    nn.BatchNorm1d: BatchGroupNorm1d,
    nn.BatchNorm2d: BatchGroupNorm2d,
    nn.BatchNorm3d: BatchGroupNorm3d,
}
_EXAMPLE_WEIGHING = {
    nn.BatchNorm1d: ExampleWeighingBatchNorm1d,
    nn.BatchNorm2d: ExampleWeighingBatchNorm2d,
    nn.BatchNorm3d: ExampleWeighingBatchNorm3d,
}


def convert(model: nn.Module, kind: Kind, **options: Any) -> Conversion:
    """Change the BatchNorm layers of `model`, in place; the model comes back with a list of them.

    | kind | options | |
    | --- | --- | --- |
    | "ghost" | ghost_size | `GhostBatchNorm`, noise of small batches in training |
    | "batch-group" | groups, examples | `BatchGroupNorm`, for tiny batches |
    | "example-weighing" | alpha | `ExampleWeighingBatchNorm`, for inference |
    | "frozen" | | `freeze`, for the last epochs |
    | "sync" | process_group | PyTorch's SyncBatchNorm |
    | "xbn" | as `convert_xbn` | a batch-free norm in each residual block |

    Running statistics, γ, β (the same tensors, but for the pooled ones of "batch-group"), eps,
    momentum, device, dtype, hooks, submodules and training mode are carried over. A model that is a
    layer itself cannot be replaced in place: take `Conversion.model`.

        conversion = convert(model, "example-weighing", alpha=0.1)
        print(conversion)

    Raises `ValueError` for a kind that there is not, a model without BatchNorm layers and values
    that make no sense; `TypeError` for a layer that cannot be replaced (a subclass with a forward
    of its own that does more than BatchNorm and its submodules, a lazy or parametrised layer) and
    for options that the kind does not have. The model is unchanged then.
    """
    if kind not in _CONVERSIONS:
        known = ", ".join(_CONVERSIONS)
        raise ValueError(f"no conversion is called {kind!r}: give one of {known}")
    conversion = _CONVERSIONS[kind]
    _check_options(kind, conversion, options)
    return conversion(model, **options)


def convert_ghost(model: nn.Module, *, ghost_size: int) -> Conversion:
    """Ghost batches of `ghost_size` examples in training; inference stays what it is."""
    return replace_batch_norms(
        model,
        "ghost",
        lambda name, layer: _like("ghost", name, layer, _GHOST, ghost_size=ghost_size),
    )


def convert_example_weighing(model: nn.Module, *, alpha: float) -> Conversion:
    """Each example's own moments at the weight `alpha` at inference; training stays what it is."""
    return replace_batch_norms(
        model,
        "example-weighing",
        lambda name, layer: _like("example-weighing", name, layer, _EXAMPLE_WEIGHING, alpha=alpha),
    )


def convert_batch_group(
    model: nn.Module, *, groups: int, examples: int | None = None
) -> Conversion:
    """Batch/Group Norm with `groups` groups of channels in every layer.

    The statistics of the channels of a group are pooled into its own. Unless every channel is a
    group, the network computes something else from then on: train it.
    """

    def replacement(name: str, layer: _BatchNorm) -> nn.Module:
        if groups < 1 or layer.num_features % groups:
            raise ValueError(
                f"batch-group: groups has to divide the {layer.num_features} channels of "
                f"{name or 'the model'}; got {groups}"
            )
        new: BatchGroupNorm = _like(
            "batch-group", name, layer, _BATCH_GROUP, groups=groups, examples=examples
        )
        if layer.running_mean is not None and layer.running_var is not None:
            pooled = pooled_channels(layer.running_mean, layer.running_var, groups)
            new.running_mean, new.running_var = pooled
            if layer.num_batches_tracked is not None:
                new.num_batches_tracked = layer.num_batches_tracked.clone()
        return new

    return replace_batch_norms(model, "batch-group", replacement)


def convert_sync(model: nn.Module, *, process_group: Any = None) -> Conversion:
    """PyTorch's SyncBatchNorm, by PyTorch's own `convert_sync_batchnorm`, layer by layer.

    Ghost batches and example weighing end: SyncBatchNorm has neither.
    """

    def replacement(name: str, layer: _BatchNorm) -> nn.Module:
        if next(layer.children(), None) is not None:
            raise TypeError(
                f"sync: {name or 'the model'} is a {type(layer).__name__}, and SyncBatchNorm does "
                "not run what it contains: replace it by hand"
            )
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(layer, process_group)
        return _frozen_as(layer, carried_over(layer, cast(nn.SyncBatchNorm, converted)))

    return replace_batch_norms(model, "sync", replacement)


def convert_frozen(model: nn.Module) -> Conversion:
    """As `freeze`."""
    return freeze(model)


_CONVERSIONS: dict[str, Callable[..., Conversion]] = {
    "ghost": convert_ghost,
    "batch-group": convert_batch_group,
    "example-weighing": convert_example_weighing,
    "frozen": convert_frozen,
    "sync": convert_sync,
    "xbn": convert_xbn,
}


def _check_options(kind: str, conversion: Callable[..., Conversion], options: Any) -> None:
    """Raises `TypeError` in words of `convert`, not of the function behind it."""
    known = list(inspect.signature(conversion).parameters.values())[1:]
    names = [one.name for one in known]
    needed = [one.name for one in known if one.default is one.empty and one.name not in options]
    if needed:
        raise TypeError(f'convert(model, "{kind}") needs {" and ".join(needed)}=…')
    strange = [name for name in options if name not in names]
    if strange:
        takes = f"it takes {', '.join(names)}" if names else "it takes no options"
        raise TypeError(f'convert(model, "{kind}") has no option {strange[0]}; {takes}')


def _like(kind: str, name: str, layer: _BatchNorm, kinds: Any, **options: Any) -> Any:
    """One of `kinds` in the layer's place."""
    if not isinstance(layer, tuple(kinds)):
        raise TypeError(
            f"{kind}: {name or 'the model'} is a {type(layer).__name__}, which does not say "
            "whether it takes (N, C), (N, C, H, W) or more: convert the model while it has "
            "BatchNorm1d, 2d or 3d there"
        )
    return _frozen_as(layer, carried_over(layer, make(kinds, layer, **options)))


def _frozen_as(layer: nn.Module, new: nn.Module) -> nn.Module:
    if is_frozen(layer):
        hold(new)
    return new
