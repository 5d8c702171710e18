"""Layers and conversions for people who train: the remedies of three papers, in PyTorch alone.

`from bnaudit import nn as bnn`. Imports nothing else of bnaudit.
"""

from __future__ import annotations

from bnaudit.nn.batch_group import BatchGroupNorm1d, BatchGroupNorm2d, BatchGroupNorm3d
from bnaudit.nn.conversion import Conversion, Replaced
from bnaudit.nn.example_weighing import (
    ExampleWeighingBatchNorm1d,
    ExampleWeighingBatchNorm2d,
    ExampleWeighingBatchNorm3d,
    example_weighed,
)
from bnaudit.nn.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d

__all__ = [
    "BatchGroupNorm1d",
    "BatchGroupNorm2d",
    "BatchGroupNorm3d",
    "Conversion",
    "ExampleWeighingBatchNorm1d",
    "ExampleWeighingBatchNorm2d",
    "ExampleWeighingBatchNorm3d",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "Replaced",
    "example_weighed",
]
