"""Where in a batch the images are that the model gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from bnaudit.engine.batches import LABEL_KEYS, map_tensors, rebuild_mapping

IMAGE_CHANNELS = (3, 1)
"""Where a batch holds tensors of both kinds, masks have one channel: those of three are images."""


def images_of(data: Any) -> list[Tensor]:
    """Every tensor of images among the inputs of a batch, each (N, C, H, W).

    Floating-point tensors (N, C, H, W), or (C, H, W) in a list or mapping, with 3 or 1 channels: in
    the first item of a tuple or list, in a mapping in all but its labels. Empty: there are none.
    """
    found: list[Tensor] = []

    def note(image: Tensor) -> Tensor:
        found.append(image if image.dim() == 4 else image.unsqueeze(0))
        return image

    map_images(note, data)
    return found


def map_images(function: Callable[[Tensor], Tensor], data: Any) -> Any:
    """The same batch with `function` applied to every tensor of images among its inputs."""
    for channels in IMAGE_CHANNELS:
        met = False

        def one(tensor: Tensor, channels: int = channels) -> Tensor:
            nonlocal met
            if not _is_image(tensor, channels, alone=tensor is data):
                return tensor
            met = True
            return function(tensor)

        mapped = _map_inputs(one, data)
        if met:
            return mapped
    return data


def _is_image(tensor: Tensor, channels: int, *, alone: bool) -> bool:
    if not tensor.is_floating_point() or min(tensor.shape[-2:], default=0) < 2:
        return False
    if tensor.dim() == 3 and not alone:
        return tensor.shape[0] == channels
    return tensor.dim() == 4 and tensor.shape[1] == channels


def _map_inputs(function: Callable[[Tensor], Tensor], data: Any) -> Any:
    """The inputs are found as `default_forward` finds them."""
    if isinstance(data, Mapping):
        inputs = {key: value for key, value in data.items() if key not in LABEL_KEYS}
        return rebuild_mapping(data, {**data, **map_tensors(function, inputs)})
    if not isinstance(data, (tuple, list)) or not data or _is_image_list(data):
        return map_tensors(function, data)
    items = (map_tensors(function, data[0]), *data[1:])
    return type(data)(*items) if hasattr(data, "_fields") else type(data)(items)


def _is_image_list(data: Any) -> bool:
    """Whether these are images without a dimension of samples, and not (inputs, labels)."""
    return isinstance(data, list) and isinstance(data[0], Tensor) and data[0].dim() == 3
