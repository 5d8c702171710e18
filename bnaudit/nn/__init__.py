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
from bnaudit.nn.frozen import FreezeAfter, freeze, is_frozen, unfreeze
from bnaudit.nn.ghost import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from bnaudit.nn.kinds import convert
from bnaudit.nn.weight_decay import decay_towards_target, parameter_groups
from bnaudit.nn.xbn import convert_xbn

__all__ = [
    "BatchGroupNorm1d",
    "BatchGroupNorm2d",
    "BatchGroupNorm3d",
    "Conversion",
    "ExampleWeighingBatchNorm1d",
    "ExampleWeighingBatchNorm2d",
    "ExampleWeighingBatchNorm3d",
    "FreezeAfter",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "Replaced",
    "convert",
    "convert_xbn",
    "decay_towards_target",
    "example_weighed",
    "freeze",
    "is_frozen",
    "parameter_groups",
    "unfreeze",
]
