"""Layers and conversions for people who train: the remedies of three papers, in PyTorch alone.

`from bnaudit import nn as bnn`. Imports nothing else of bnaudit.
"""

from __future__ import annotations

from bnaudit.nn.conversion import Conversion, Replaced
from bnaudit.nn.example_weighing import example_weighed

__all__ = ["Conversion", "Replaced", "example_weighed"]
