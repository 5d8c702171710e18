"""How images are prepared for a model of transformers, as its folder says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bnaudit.errors import InputError
from bnaudit.targets.hugging_face import folder_of, has_processor, offline, transformers_for
from bnaudit.targets.messages import told


@dataclass(frozen=True)
class ProcessorTransform:
    """An image -> the `pixel_values` that an image processor makes of it, float32 (C, H, W).

    Pillow images are made RGB for a processor with three means, as transformers' own pipelines do.
    A tensor is (C, H, W): of bytes, or of floats in 0 to 1, which are not divided by 255 again.
    InputError: floats outside that, which somebody else has normalised; a processor that gives no
    `pixel_values`.
    """

    processor: Any
    said: str

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        """The prepared image."""
        options: dict[str, Any] = {"return_tensors": "pt"}
        if isinstance(image, Tensor):
            options["input_data_format"] = "channels_first"
            if image.is_floating_point():
                self._check_range(image)
                options["do_rescale"] = False
        elif self._channels() != 1:
            image = image.convert("RGB")
        made = self.processor(images=image, **options)
        if "pixel_values" not in made:
            raise InputError(
                f"{self.said}: {type(self.processor).__name__} gives no pixel_values: give "
                "--transform path/file.py:NAME"
            )
        values: Tensor = made["pixel_values"][0]
        return values.to(torch.float32)

    def _channels(self) -> int:
        mean = getattr(self.processor, "image_mean", None)
        return len(mean) if isinstance(mean, list | tuple) else 3

    def _check_range(self, image: Tensor) -> None:
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 1:
            raise InputError(
                f"{self.said}: takes bytes, or floats in 0 to 1, and this image has {low:g} to "
                f"{high:g}: data that are prepared already come from a --data path/file.py:NAME"
            )


def build_processor(spec: str) -> ProcessorTransform:
    """The preprocessing that `--transform hf:DIR` names: DIR/preprocessor_config.json.

    transformers' own processor does it, in full: resizing, cropping, scale, mean and deviation,
    the order of channels. InputError: no such folder or file, a processor that is unknown, in need
    of code or of a download.
    """
    folder = folder_of(spec)
    assert folder is not None
    said = f"--transform {spec}"
    if not has_processor(folder):
        raise InputError(f"{said}: {folder} has no preprocessor_config.json: {_OTHERWISE}")
    transformers = transformers_for(said)
    with offline(said):
        return ProcessorTransform(_processor(transformers, folder, said), said)


_OTHERWISE = "give imagenet, or a path/file.py:NAME"


def _processor(transformers: Any, folder: Path, said: str) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # any setting may be wrong in its own way
        raise InputError(f"{said}: its processor cannot be built: {told(error)}") from error
