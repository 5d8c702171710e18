"""The stored state of a network's BatchNorm layers: what a checkpoint or a model holds, no data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

USUAL_EPS = 1e-5
"""PyTorch's default, assumed where only a checkpoint is known: no checkpoint stores eps."""


@dataclass(frozen=True, eq=False)
class LayerState:
    """One BatchNorm layer as it is stored; every array (C,), float64.

    `gamma`, `beta`: None where the layer has none. `num_batches_tracked` None: not stored; it is
    not an integer where weights were averaged. `dtype`: of the statistics, as NumPy names it, or
    "bfloat16". `eps_known` False: `eps` is assumed. `momentum`, `tracks` (track_running_stats) and
    `kind` None: only the model's code would tell.
    """

    name: str
    running_mean: Floats
    running_var: Floats
    gamma: Floats | None
    beta: Floats | None
    num_batches_tracked: float | None
    dtype: str
    eps: float = USUAL_EPS
    eps_known: bool = False
    momentum: float | None = None
    tracks: bool | None = None
    kind: str | None = None

    @property
    def channels(self) -> int:
        """C."""
        return len(self.running_mean)

    @property
    def scale(self) -> Floats:
        """γ/√(v̂ + ε): what each channel is multiplied by at inference; NaN where undefined."""
        variance = np.where(self.running_var + self.eps > 0, self.running_var + self.eps, np.nan)
        gamma = np.ones(self.channels) if self.gamma is None else self.gamma
        scale: Floats = gamma / np.sqrt(variance)
        return scale

    @property
    def offset(self) -> Floats:
        """β − m̂·γ/√(v̂ + ε): what is added to each channel at inference."""
        beta = np.zeros(self.channels) if self.beta is None else self.beta
        offset: Floats = beta - self.running_mean * self.scale
        return offset


@dataclass(frozen=True)
class Incomplete:
    """A BatchNorm layer whose statistics are not all stored, as what is stored of them proves.

    `only`: that, "running_mean", "running_var" or "num_batches_tracked".
    """

    name: str
    only: str


@dataclass(frozen=True, eq=False)
class State:
    """The BatchNorm layers of a network, in the order in which they are stored.

    `source`: what it was read from. `without_statistics`: names of layers that look like BatchNorm
    and have weights but no statistics. `incomplete`: those that have a part of them; such a layer
    may stand in `layers` too, with what a model had in the place of the rest. `steps`:
    optimiser steps that the checkpoint speaks of. `averaged`: how many models its weights are an
    average of, where it says so. `recalibrate`: the command that estimates the statistics anew,
    where it is known.
    """

    source: str
    layers: tuple[LayerState, ...]
    without_statistics: tuple[str, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    steps: int | None = None
    averaged: float | None = None
    recalibrate: str | None = None

    def __getitem__(self, name: str) -> LayerState:
        """The layer called `name`. KeyError where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)
