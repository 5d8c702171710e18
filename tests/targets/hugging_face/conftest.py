"""For models of transformers: folders that hold them, data, and no network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any connection fails the test, whatever becomes of the exception."""
    tried: list[object] = []

    def refuse(_: object, address: object) -> None:
        tried.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    yield
    assert tried == []


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`saved("resnet")` -> a folder of save_pretrained with model and processor."""
    import tiny_transformers as tiny
    from tiny_transformers import transformers

    kept: dict[str, Path] = {}
    square = {"height": tiny.SIZE, "width": tiny.SIZE}
    processors = {
        "resnet": lambda: transformers.ConvNextImageProcessor(
            do_resize=False, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.25, 0.3]
        ),
        "regnet": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": tiny.SIZE}),
        "mobilenet_v1": lambda: transformers.MobileNetV1ImageProcessor(
            size={"shortest_edge": 40}, crop_size=square
        ),
        "mobilenet_v2": lambda: transformers.MobileNetV2ImageProcessor(
            size={"shortest_edge": 40}, crop_size=square
        ),
        "detr": lambda: transformers.DetrImageProcessor(size=square),
    }

    def save(name: str) -> Path:
        if name not in kept:
            torch.manual_seed(0)
            kept[name] = tmp_path_factory.mktemp(name)
            tiny.with_statistics(getattr(tiny, name)()).save_pretrained(kept[name])
            processors[name]().save_pretrained(kept[name])
        return kept[name]

    return save


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of images with labels."""
    from tiny_transformers import IMAGES, SIZE

    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("data") / "val.npz"
    images = rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3)).astype(np.uint8)
    np.savez(file, x=images, y=rng.integers(0, 3, IMAGES))
    return file
