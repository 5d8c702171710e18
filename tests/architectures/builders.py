"""torchvision's model builders: which contain BatchNorm, and what each takes as input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.engine.batches import default_forward
from bnaudit.targets.models import build_model
from bnaudit.targets.outlines import outlined

BATCH_SIZES = (2, 2, 1)
"""Three batches; the last is smaller than the others, as a loader's last one is."""


@cache
def builders_with_batchnorm() -> tuple[str, ...]:
    """Every name of `torchvision.models.list_models()` whose model contains BatchNorm."""
    return tuple(
        n
        for n in torchvision.models.list_models()
        if batchnorm_names(outlined(f"torchvision:{n}", {}))
    )


def needs_batchnorm(name: str) -> None:
    """Skip the test where the builder's model has none, which takes long to know of all of them."""
    if not batchnorm_names(outlined(f"torchvision:{name}", {})):
        pytest.skip(f"{name} has no BatchNorm")


def batchnorm_names(model: nn.Module) -> list[str]:
    """The names of PyTorch's own BatchNorm modules in `model`."""
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def _images(images: Tensor, others: Tensor) -> Any:
    return images


def _image_list(images: Tensor, others: Tensor) -> Any:
    return (list(images),)


def _pair(images: Tensor, others: Tensor) -> Any:
    return images, others


def _one_flow_update(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Any:
    return model(*pair, num_flow_updates=1)


@dataclass(frozen=True)
class Case:
    """How one builder is called, and what goes into its model.

    `shape` is that of one image or clip. `collate` makes a batch of two tensors (N, *shape): the
    images and, for models that take pairs, as many others. `forward` is what `measure` takes.
    """

    name: str
    shape: tuple[int, ...]
    args: Mapping[str, object] = field(default_factory=dict)
    collate: Callable[[Tensor, Tensor], Any] = _images
    forward: Callable[[nn.Module, Any], Any] = default_forward

    def model(self) -> nn.Module:
        """The model with seeded random weights; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_model(f"torchvision:{self.name}", self.args)

    def batches(self) -> list[Any]:
        """Seeded batches of `BATCH_SIZES` samples with values in 0 to 1."""
        generator = torch.Generator().manual_seed(1)
        drawn = [torch.rand(2, n, *self.shape, generator=generator) for n in BATCH_SIZES]
        return [self.collate(images, others) for images, others in drawn]


def case_of(name: str) -> Case:
    """Small inputs that the builder's family takes; an unknown family gets images of 32 x 32.

    MaxViT's windows want 224 x 224, S3D's last pooling 16 frames of that, RAFT's correlation
    pyramid 128 x 128. Detection models would enlarge their images to 800 pixels.
    """
    family = torchvision.models.get_model_builder(name).__module__.removeprefix(
        "torchvision.models."
    )
    if family.startswith("detection."):
        return _detection_case(name)
    if family.startswith("optical_flow."):
        return Case(name, (3, 128, 128), collate=_pair, forward=_one_flow_update)
    if family.startswith("video."):
        return Case(name, (3, 16, 224, 224) if family == "video.s3d" else (3, 4, 32, 32))
    side = {"maxvit": 224, "inception": 75, "quantization.inception": 75}.get(family, 32)
    return Case(name, (3, side, side))


def _detection_case(name: str) -> Case:
    if name.startswith("ssdlite320"):  # it resizes every image to 320 x 320
        return Case(name, (3, 64, 64), collate=_image_list)
    args = {"min_size": 64, "max_size": 64}
    if "rcnn" in name:  # so many regions an image reach the box head, and the mask head
        args |= {"rpn_pre_nms_top_n_test": 16, "rpn_post_nms_top_n_test": 8}
        args |= {"box_detections_per_img": 4}
    return Case(name, (3, 64, 64), args, collate=_image_list)
