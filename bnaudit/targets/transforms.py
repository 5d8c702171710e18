"""What a user names with `--transform` -> a callable from an image to a tensor."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
import torchvision.models
import torchvision.transforms
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from bnaudit.errors import InputError
from bnaudit.targets.factories import call_factory, load_factory, needed_by
from bnaudit.targets.hugging_face import folder_of
from bnaudit.targets.image_processor import build_processor
from bnaudit.targets.messages import did_you_mean, kind_of, listed

_OPTION = "--transform"
_FORMS = (
    "a torchvision weights name such as ResNet50_Weights.IMAGENET1K_V2, imagenet, hf:DIR, "
    "path/file.py:NAME or package.module:NAME"
)
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def build_transform(spec: str | None) -> Callable[[Any], Any] | None:
    """The transform that `--transform spec` names; None for none.

    - `ResNet50_Weights.IMAGENET1K_V2` and the like: the preprocessing that torchvision publishes
      with those weights. The weights themselves are not downloaded.
    - `imagenet`: resize to 256, centre crop of 224, RGB/255, ImageNet's mean and deviation.
    - `hf:DIR`: the image processor of a folder of transformers (`build_processor`).
    - `path/file.py:NAME`, `package.module:NAME`: called without arguments, returns the transform.

    InputError: an unknown name (the message has the nearest ones), or a factory that needs
    arguments, raises, or returns something that cannot be called.
    """
    if spec is None:
        return None
    if spec == "imagenet":
        return _imagenet()
    if folder_of(spec) is not None:
        return build_processor(spec)
    if ":" in spec or spec.endswith(".py"):
        return _from_factory(spec)
    return _from_weights(spec)


def as_tensor(image: Image.Image | Tensor) -> Tensor:
    """An image as float32 (C, H, W) in 0 to 1; a float tensor stays as it is."""
    tensor = image if isinstance(image, Tensor) else pil_to_tensor(image)
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32) / 255


def as_rgb(image: Image.Image | Tensor) -> Image.Image | Tensor:
    """A Pillow image of any mode as RGB; a tensor stays as it is."""
    return image.convert("RGB") if isinstance(image, Image.Image) else image


def _imagenet() -> Callable[[Any], Any]:
    tv: Any = torchvision.transforms  # whose classes are not typed
    steps = [as_rgb, tv.Resize(256), tv.CenterCrop(224), as_tensor, tv.Normalize(_MEAN, _STD)]
    transform: Callable[[Any], Any] = tv.Compose(steps)
    return transform


def _from_weights(spec: str) -> Callable[[Any], Any]:
    enum_name, _, value = spec.partition(".")
    enums = _weights_enums()
    if enum_name not in enums:
        known = [f"{name}.{v}" for name, enum in enums.items() for v in enum.__members__]
        hint = did_you_mean(spec, [*known, "imagenet"])
        raise InputError(f"{_OPTION} {spec}: not {_FORMS}{hint}")
    members = enums[enum_name].__members__
    if value not in members:
        names = listed(f"{enum_name}.{name}" for name in members)
        raise InputError(f"{_OPTION} {spec}: {enum_name} has {names}")
    transform: Callable[[Any], Any] = members[value].value.transforms()
    return transform


def _weights_enums() -> dict[str, type[Enum]]:
    models: Any = torchvision.models  # whose functions are not typed as exports
    enums = (models.get_model_weights(name) for name in models.list_models())
    return {enum.__name__: enum for enum in enums}


def _from_factory(spec: str) -> Callable[[Any], Any]:
    factory = load_factory(spec, option=_OPTION)
    needed = needed_by(factory)
    if needed:
        raise InputError(
            f"{_OPTION} {spec} is called without arguments and returns the transform; this one "
            f"needs {', '.join(needed)}"
        )
    transform = call_factory(factory, {}, option=_OPTION, spec=spec)
    if not callable(transform):
        raise InputError(
            f"{_OPTION} {spec} returned {kind_of(transform)}: it is called without arguments and "
            "returns the transform, a function of one image"
        )
    return transform  # type: ignore[no-any-return]
