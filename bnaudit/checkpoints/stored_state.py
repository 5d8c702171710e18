"""The BatchNorm layers of a checkpoint, found by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bnaudit.checkpoints.contents import Contents, ModuleFacts
from bnaudit.checkpoints.file_tensor import FileTensor
from bnaudit.checkpoints.messages import input_error
from bnaudit.results.state import USUAL_EPS, Floats, Incomplete, LayerState, State

_MEAN, _VAR = "running_mean", "running_var"
_COUNTER = "num_batches_tracked"

# bn, bn1, bn2a, conv_bn, batchnorm, batch_norm_2, BatchNorm2d; never a plain norm, which as often
# is a layer's or a group's.
_BN_NAME = re.compile(r"(?:\w+_)?(?:bn|batch_?norm(?:[123]d)?)(?:_?\d+[a-z]?)?", re.IGNORECASE)
# What may stand behind such a name: the layer's place in a list, or its name in a wrapper.
_INNER = re.compile(r"\d+|module|norm", re.IGNORECASE)


@dataclass(frozen=True)
class _Named:
    """A layer's name, and how it begins the names of its tensors."""

    name: str
    prefix: str


def state_of_contents(contents: Contents, *, eps: float | None = None) -> State:
    """The stored state of every BatchNorm layer in a checkpoint, in the order of the file.

    A layer is `*.running_mean` with `*.running_var`, one-dimensional and of one length, which is
    not 0; γ, β and the counter are `weight`, `bias` and `num_batches_tracked` beside them. A
    pickled model's modules tell their eps, momentum and kind (an InstanceNorm is left out); no
    other checkpoint does: `eps` is that of the model where it is given, else `USUAL_EPS` is
    assumed. A layer that has one of the two, or the counter, and not the rest is `incomplete`.
    """
    layers = tuple(
        _layer(contents, layer, eps)
        for layer in _layers(contents)
        if _is_batch_norm(contents, layer)
    )
    return State(
        source=str(contents.path),
        layers=layers,
        without_statistics=tuple(_without_statistics(contents)),
        incomplete=tuple(_incomplete(contents)),
        steps=contents.steps,
        averaged=_averaged(contents),
    )


def _averaged(contents: Contents) -> float | None:
    """What torch's AveragedModel counts beside the weights."""
    for name, tensor in contents.tensors.items():
        if name.rpartition(".")[2] == "n_averaged" and tensor.elements == 1 and _is_real(tensor):
            return float(tensor.values().item())
    return None


def _layers(contents: Contents) -> Iterator[_Named]:
    for name, mean in contents.tensors.items():
        prefix = name.removesuffix(_MEAN)
        if prefix == name or (prefix and not prefix.endswith(".")):
            continue
        variance = contents.tensors.get(f"{prefix}{_VAR}")
        fits = variance is not None and mean.shape == variance.shape
        if fits and len(mean.shape) == 1 and mean.shape[0] and _is_real(mean):
            yield _Named(prefix.removesuffix("."), prefix)


def _is_real(tensor: FileTensor) -> bool:
    return not tensor.dtype.startswith("complex")


def _is_batch_norm(contents: Contents, layer: _Named) -> bool:
    kind = _facts(contents, layer).kind
    return kind is None or "InstanceNorm" not in kind


def _facts(contents: Contents, layer: _Named) -> ModuleFacts:
    return contents.modules.get(layer.name, ModuleFacts())


def _layer(contents: Contents, layer: _Named, eps: float | None) -> LayerState:
    mean, variance = (contents.tensors[layer.prefix + leaf] for leaf in (_MEAN, _VAR))
    facts = _facts(contents, layer)
    known = facts.eps if facts.eps is not None else eps
    return LayerState(
        name=layer.name,
        running_mean=_floats(contents, mean),
        running_var=_floats(contents, variance),
        gamma=_vector(contents, layer, "weight", mean.shape),
        beta=_vector(contents, layer, "bias", mean.shape),
        num_batches_tracked=_counter(contents, layer),
        dtype=variance.dtype,
        eps=USUAL_EPS if known is None else known,
        eps_known=known is not None,
        momentum=facts.momentum,
        tracks=facts.tracks,
        kind=facts.kind,
    )


def _vector(contents: Contents, layer: _Named, leaf: str, shape: tuple[int, ...]) -> Floats | None:
    tensor = contents.tensors.get(layer.prefix + leaf)
    if tensor is None or tensor.shape != shape or not _is_real(tensor):
        return None
    return _floats(contents, tensor)


def _counter(contents: Contents, layer: _Named) -> float | None:
    tensor = contents.tensors.get(layer.prefix + _COUNTER)
    if tensor is None or tensor.elements != 1 or not _is_real(tensor):
        return None
    return float(tensor.values().item())


def _floats(contents: Contents, tensor: FileTensor) -> Floats:
    if tensor.elements > contents.bytes:  # one number, shown over and over
        what = f"a layer of {tensor.elements:,} channels, more than the file has bytes"
        raise input_error(contents.path, f"{what}; it is damaged: copy or download it again")
    return np.array(tensor.values(), dtype=np.float64)


def _without_statistics(contents: Contents) -> Iterator[str]:
    """Layers that look like BatchNorm, or are known to be, and have weights alone."""
    for name, weight in contents.tensors.items():
        prefix = name.removesuffix("weight")
        if prefix == name or not prefix.endswith(".") or len(weight.shape) != 1:
            continue
        bias = contents.tensors.get(f"{prefix}bias")
        if bias is None or bias.shape != weight.shape:
            continue
        if any(f"{prefix}{leaf}" in contents.tensors for leaf in (_MEAN, _VAR, _COUNTER)):
            continue
        layer = _Named(prefix.removesuffix("."), prefix)
        if _looks_like_batch_norm(contents, layer):
            yield layer.name


def _incomplete(contents: Contents) -> Iterator[Incomplete]:
    """Layers that certainly had statistics and have not all of them.

    A lone mean or variance is a BatchNorm's only with its weight or counter, or by its name:
    weight normalisation by the mean alone has one too.
    """
    for name, tensor in contents.tensors.items():
        prefix, leaf = name[: name.rfind(".") + 1], name.rpartition(".")[2]
        if leaf not in (_MEAN, _VAR, _COUNTER) or not _is_real(tensor):
            continue
        stored = [x for x in (_MEAN, _VAR, _COUNTER) if f"{prefix}{x}" in contents.tensors]
        pair = [x for x in stored if x != _COUNTER]
        layer = _Named(prefix.removesuffix("."), prefix)
        if len(pair) == 2 or leaf != stored[0] or not _is_batch_norm(contents, layer):
            continue
        if leaf == _COUNTER:
            certain = tensor.elements == 1
        else:
            weight = contents.tensors.get(f"{prefix}weight")
            beside = weight is not None and weight.shape == tensor.shape
            known = _COUNTER in stored or beside or _looks_like_batch_norm(contents, layer)
            certain = known and len(tensor.shape) == 1 and tensor.elements > 0
        if certain:
            yield Incomplete(layer.name, leaf)


def _looks_like_batch_norm(contents: Contents, layer: _Named) -> bool:
    kind = _facts(contents, layer).kind
    if kind is not None:
        return "BatchNorm" in kind
    *rest, last = layer.name.split(".")
    if _BN_NAME.fullmatch(last):
        return True
    return bool(rest and _INNER.fullmatch(last) and _BN_NAME.fullmatch(rest[-1]))
