"""Putting one norm in the place of another, with everything that belonged to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from bnaudit.nn.batch_group import BatchGroupNorm
from bnaudit.nn.conversion import Conversion, Replaced
from bnaudit.nn.parts import is_norm_then_parts

N = TypeVar("N", bound=nn.Module)

_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_SIZES = ("num_features", "num_groups", "num_channels")
_OPTIONS = ("ghost_size", "groups", "examples", "alpha")


def replace_batch_norms(
    model: nn.Module, kind: str, replacement: Callable[[str, _BatchNorm], nn.Module]
) -> Conversion:
    """Every BatchNorm layer of `model`, in place, by `replacement(its name, the layer)`.

    The layer is replaced under every name that it has. Nothing is replaced where one of the
    replacements fails. Raises `ValueError` where the model has no BatchNorm layer, `TypeError` for
    one that no other can stand in for; both begin with `kind`.
    """
    return replace(model, kind, batch_norms(model, kind), replacement)


def batch_norms(model: nn.Module, kind: str) -> list[tuple[str, _BatchNorm]]:
    """The BatchNorm layers of `model` and their first names, in the order of registration.

    Raises `ValueError`, beginning with `kind`, where there is none.
    """
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    if layers:
        return layers
    grouped = [name for name, m in model.named_modules() if isinstance(m, BatchGroupNorm)]
    if not grouped:
        raise ValueError(f"{kind}: the model has no BatchNorm layer")
    shortened = ", ".join(name or "the model" for name in grouped[:3])
    more = f" and {len(grouped) - 3} more" if len(grouped) > 3 else ""
    raise ValueError(
        f"{kind}: the model has no BatchNorm layer, only BatchGroupNorm ({shortened}{more}), whose "
        "statistics are those of groups of channels, which no other layer can take over: convert "
        "the model that still has BatchNorm"
    )


def replace(
    model: nn.Module,
    kind: str,
    layers: Sequence[tuple[str, _BatchNorm]],
    replacement: Callable[[str, _BatchNorm], nn.Module],
) -> Conversion:
    """Some of the layers that `batch_norms` gave, otherwise as `replace_batch_norms`."""
    for name, layer in layers:
        _check(kind, name, layer)
    replacements: dict[nn.Module, nn.Module] = {m: replacement(name, m) for name, m in layers}
    replaced = tuple(
        Replaced(name, shown(layer), shown(replacements[layer])) for name, layer in layers
    )
    _put(model, replacements)
    return Conversion(replacements.get(model, model), replaced)


def carried_over(layer: _BatchNorm, new: N) -> N:
    """`new` with the very parameters and statistics of `layer`, its submodules, hooks and mode.

    `new` was made without parameters and statistics of its own, and takes those that it has a place
    for. An optimiser that has the parameters keeps them.
    """
    for name in ("affine", "track_running_stats"):
        if hasattr(new, name):
            setattr(new, name, getattr(layer, name))
    for name in _STATE:
        if name in new._parameters or name in new._buffers:
            setattr(new, name, getattr(layer, name))
    for name, part in layer.named_children():
        new.add_module(name, part)
    for name, value in vars(layer).items():
        if "_hooks" in name and name in vars(new):
            vars(new)[name] = value  # the same dictionary: handles that remove a hook still do
    new.training = layer.training
    return new


def make(kinds: Mapping[type[nn.Module], type[N]], layer: _BatchNorm, **options: Any) -> N:
    """The one of `kinds` for the layer's inputs, with its eps and momentum and no tensors."""
    kind = next(new for old, new in kinds.items() if isinstance(layer, old))
    return kind(
        layer.num_features,
        **options,
        eps=layer.eps,
        momentum=layer.momentum,
        affine=False,
        track_running_stats=False,
    )


def shown(layer: nn.Module) -> str:
    """A layer in a few words: its class, channels and what is special about it."""
    sizes = [str(getattr(layer, name)) for name in _SIZES if hasattr(layer, name)]
    options = [f"{name}={getattr(layer, name)}" for name in _OPTIONS if hasattr(layer, name)]
    return f"{type(layer).__name__}({', '.join([*sizes, *options])})"


def _check(kind: str, name: str, layer: _BatchNorm) -> None:
    what = f"{kind}: {name or 'the model'} is a {type(layer).__name__}"
    if isinstance(layer, LazyModuleMixin):
        raise TypeError(f"{what} that has not seen an input yet: run one forward first")
    if torch.nn.utils.parametrize.is_parametrized(layer):
        raise TypeError(f"{what} with parametrised weights: remove the parametrisation first")
    if not is_norm_then_parts(layer):
        raise TypeError(
            f"{what}, whose own forward does more than BatchNorm and its submodules: replace it by "
            "hand"
        )


def _put(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    for parent in list(model.modules()):
        if parent in replacements:
            continue
        for name, child in parent._modules.items():
            if child is not None and child in replacements:
                parent._modules[name] = replacements[child]
