from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from bnaudit.errors import InputError
from bnaudit.targets.transforms import build_transform

Write = Callable[..., Path]

FILE = """
def double(): return lambda image: 2 * image
def of_image(image): return image
def nothing(): return None
def number(): return 3
def fails(): raise KeyError('mean')
"""


def test_no_transform_is_none() -> None:
    assert build_transform(None) is None


def test_a_weights_name_is_its_published_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    for name, size in [("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232), ("DEFAULT", 232)]:
        transform = build_transform(f"ResNet50_Weights.{name}")
        assert transform.resize_size == [size]


@pytest.mark.parametrize(
    "name", ["FCN_ResNet50_Weights.DEFAULT", "ResNet18_QuantizedWeights.DEFAULT"]
)
def test_weights_of_every_family_are_known(name: str) -> None:
    assert callable(build_transform(name))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_imagenet_is_a_normalised_crop_of_224(mode: str) -> None:
    transform = build_transform("imagenet")
    pixels = transform(Image.new("RGB", (300, 400), (255, 0, 51)).convert(mode))
    assert pixels.shape == (3, 224, 224)
    if mode != "L":
        expected = (np.array([1, 0, 0.2]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(pixels[:, 100, 100], expected, rtol=1e-5)


def test_imagenet_takes_float_tensors_as_they_are() -> None:
    transform = build_transform("imagenet")
    pixels = transform(torch.full((3, 256, 256), 0.5))
    assert pixels[0, 0, 0].item() == pytest.approx((0.5 - 0.485) / 0.229)


def test_a_factory_is_called_without_arguments(write: Write) -> None:
    assert build_transform(f"{write('prep.py', FILE)}:double")(21) == 42


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("imagent", ["did you mean imagenet", "path/file.py:NAME"]),
        ("ResNet5_Weights.IMAGENET1K_V1", ["did you mean ResNet50_Weights.IMAGENET1K_V1"]),
        ("ResNet50_Weights.V3", ["ResNet50_Weights.IMAGENET1K_V2"]),
        ("ResNet50_Weights", ["ResNet50_Weights.IMAGENET1K_V2"]),
        ("{dir}/prep.py", ["prep.py:NAME"]),
        ("{dir}/prep.py:of_image", ["without arguments", "needs image"]),
        ("{dir}/prep.py:nothing", ["returned nothing"]),
        ("{dir}/prep.py:number", ["returned an int", "a function of one image"]),
        ("{dir}/prep.py:fails", ["KeyError: 'mean'", "prep.py:6"]),
    ],
)
def test_a_wrong_transform_is_told_in_one_line(
    write: Write, tmp_path: Path, spec: str, words: list[str]
) -> None:
    write("prep.py", FILE)
    spec = spec.format(dir=tmp_path)
    with pytest.raises(InputError) as caught:
        build_transform(spec)
    assert str(caught.value).startswith(f"--transform {spec}")
    for word in words:
        assert word in str(caught.value)
