"""Which tensors of a file feed a BatchNorm layer, told by their order or by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bnaudit.checkpoints.differences import is_floating
from bnaudit.checkpoints.file_tensor import FileTensor

STATISTICS = ("running_mean", "running_var")
_MEMBERS = ("weight", "bias", *STATISTICS, "num_batches_tracked")

_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True)
class Segments:
    """`own`: by layer, in the order of the network where `ordered`, the tensors that feed it and no
    earlier layer.
    """

    own: Mapping[str, tuple[str, ...]]
    ordered: bool


def member(layer: str, what: str) -> str:
    """The name of a layer's tensor, `layer1.0.bn1.running_mean`."""
    return f"{layer}.{what}" if layer else what


def weight_names(tensors: Mapping[str, FileTensor], layers: Sequence[str]) -> list[str]:
    """The tensors that are neither BatchNorm's nor counts, in the order of the file."""
    ours = {member(layer, what) for layer in layers for what in _MEMBERS}
    return [
        name
        for name, tensor in tensors.items()
        # Integers of two dimensions and more may be quantised weights.
        if name not in ours and (is_floating(tensor.dtype) or len(tensor.shape) > 1)
    ]


def in_order_of_network(tensors: Mapping[str, FileTensor]) -> bool:
    """Whether the order may be the one in which modules were declared.

    It is not where the names of each type are in the order of the alphabet and a bias comes before
    its weight, which no state dict has: safetensors sorts so.
    """
    by_type: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        by_type.setdefault(tensor.dtype, []).append(name)
    if any(names != sorted(names) for names in by_type.values()):
        return True
    place = {name: i for i, name in enumerate(tensors)}
    pairs = [(name, f"{name.removesuffix('weight')}bias") for name in tensors]
    return not any(
        weight.endswith("weight") and bias in place and place[bias] < place[weight]
        for weight, bias in pairs
    )


def by_order(tensors: Mapping[str, FileTensor], layers: Sequence[str]) -> Segments:
    """A layer's own tensors are those between the layer before it and itself."""
    layer_of = {member(layer, what): layer for layer in layers for what in _MEMBERS}
    weights = set(weight_names(tensors, layers))
    own: dict[str, tuple[str, ...]] = {}
    waiting: list[str] = []
    for name in tensors:
        layer = layer_of.get(name)
        if layer is not None and layer not in own:
            own[layer], waiting = tuple(waiting), []
        elif name in weights:
            waiting.append(name)
    return Segments(own, ordered=True)


def by_name(tensors: Mapping[str, FileTensor], layers: Sequence[str]) -> Segments:
    """A layer's own tensors are its neighbours' of as many channels: `conv1` of `bn1`, 0 of 1.

    What is upstream of a layer is not known then.
    """
    weights = weight_names(tensors, layers)
    own = {layer: tuple(_feeding(layer, tensors, weights)) for layer in layers}
    return Segments(own, ordered=False)


def _feeding(layer: str, tensors: Mapping[str, FileTensor], weights: Sequence[str]) -> list[str]:
    channels = tensors[member(layer, STATISTICS[0])].shape[0]
    block, _, last = layer.rpartition(".")
    siblings: dict[str, list[str]] = {}
    for name in weights:
        module = name.rpartition(".")[0]
        if module.rpartition(".")[0] == block and channels in tensors[name].shape[:2]:
            siblings.setdefault(module.rpartition(".")[2], []).append(name)
    if last.isdigit():
        before = [int(sibling) for sibling in siblings if sibling.isdigit()]
        nearest = max((number for number in before if number < int(last)), default=None)
        return siblings.get(str(nearest), [])
    alike = [sibling for sibling in siblings if _number(sibling) == _number(last)]
    return [name for sibling in alike or siblings for name in siblings[sibling]]


def _number(name: str) -> str:
    found = _NUMBER.search(name)
    return found.group() if found else ""
