"""What was found about the preprocessing of the data: the shift at the first layers, and what
undoing each possible mistake does to it. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from bnaudit.results.change import Change


@dataclass(frozen=True)
class Candidate:
    """A mistake of the preprocessing that was tried.

    `mistake` says it in words, `mend` what to do about it. `shift`: that of `Preprocessing`, as
    given and with the mistake undone, on the same samples; `by_layer` with it undone. `p_value`:
    one-sided, of "undoing it does not lower the shift". `pixel_range`: between which limits the
    pixels lie (0.1% and 99.9% quantile), and `whole_levels`: which share of them are whole levels
    of 8 bits, k/255, if the tensors were made as the mistake says; None where the values are too
    coarse to tell.

    `pixels` and `entropy` are for a mistake in the pixels themselves (order of the channels,
    layout, dark for bright) and not only in their scale: what undoing this part of it does, to the
    shift, and to the entropy of the network's class scores (nats; None where the shift does not
    fall, or there are no class scores).
    """

    mistake: str
    mend: str
    shift: Change
    p_value: float
    by_layer: tuple[float, ...]
    pixel_range: tuple[float, float]
    whole_levels: float | None = None
    pixels: Change | None = None
    entropy: Change | None = None


@dataclass(frozen=True)
class Preprocessing:
    """The shift at the first `layers` in the deployed condition, on the first `samples` samples.

    `shift` is the root mean square over these layers of the (debiased) output shift, in standard
    deviations of the normalised activation; `low` and `high` bound its 95% interval, None where it
    is withheld. `by_layer`: each layer's, as computed. `candidates`: the mistakes that were tried,
    the smallest shift left first; none where the shift is small. `note` says why none could be
    tried.
    """

    layers: tuple[str, ...]
    samples: int
    shift: float
    low: float | None
    high: float | None
    by_layer: tuple[float, ...]
    candidates: tuple[Candidate, ...] = ()
    note: str | None = None
