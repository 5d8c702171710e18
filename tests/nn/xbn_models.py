"""Networks from elsewhere in the repository, for the tests of XBN."""

import importlib
import sys
from pathlib import Path
from typing import Any

from torch import nn

ROOT = Path(__file__).resolve().parents[2]


def digits_net() -> nn.Module:
    """The network of the sample models."""
    return _module("sample_models", "digits").model()


def cifar_resnet(n: int) -> nn.Module:
    """The ResNet of 6n + 2 layers for CIFAR-10, untrained, as the tests of the engine have it."""
    return _module("tests/engine", "cifar_resnet").CifarResNet(n)


def _module(folder: str, name: str) -> Any:
    sys.path.insert(0, str(ROOT / folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / folder))
