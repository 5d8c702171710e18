"""The preprocessing that is published with a model's weights."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import torchvision.models


def transform_of_file(spec: str, file: Path) -> str | None:
    """What `--transform` calls the preprocessing of the published weights that `file` is.

    Told by the file's name, which has a part of its hash in it: `resnet50-0676ba61.pth`. None where
    it is not one of those torchvision publishes for this model.
    """
    for weights in _weights(spec):
        if PurePosixPath(weights.url).name == file.name:
            return _name(weights)
    return None


def newest_transform(spec: str) -> str | None:
    """The same of a torchvision classifier's newest weights; None for any other model."""
    weights = _weights(spec)
    return _name(type(weights[0]).DEFAULT) if weights else None


def _weights(spec: str) -> list[Any]:
    source, _, name = spec.partition(":")
    zoo: Any = torchvision.models  # whose functions are not typed as exports
    # Of its own module: not detection, segmentation, video, whose inputs are not single images.
    if source != "torchvision" or name.lower() not in zoo.list_models(module=zoo):
        return []
    return list(zoo.get_model_weights(name))


def _name(weights: Any) -> str:
    return f"{type(weights).__name__}.{weights.name}"
