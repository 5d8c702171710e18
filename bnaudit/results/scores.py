"""How a network does under one condition, and figures with their limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure and the limits of its 95% interval, None where they are withheld."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scores:
    """A network's outputs under one condition, on `samples` samples.

    `accuracy` (top-1, 0 to 1) and `loss` (mean cross-entropy, nats) are over the `labelled` ones.
    `agreement` (the share of equal top-1 classes) and `kl` (mean KL(deployed ‖ this), nats) compare
    with the outputs of the same samples under the estimates. Each is None where the outputs are no
    class scores, the first two without labels. `loss` and `kl` are None where they are not finite.
    `relative_rms` is for other outputs: √(Σ(a−b)²/Σa²), a being those under the estimates.
    """

    samples: int
    labelled: int = 0
    accuracy: Figure | None = None
    loss: Figure | None = None
    agreement: Figure | None = None
    kl: Figure | None = None
    relative_rms: float | None = None
