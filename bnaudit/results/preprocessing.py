"""What was found about the preprocessing of the data: the shift at the first layers, and what mends
it. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A mistake of the preprocessing that was tried: the shift that is left once it is undone.

    `mistake` says it in words, `mend` what to do about it. `left` is the shift at the first layers
    with the mistake undone, `change` that minus the shift as given, `low` and `high` its 95%
    interval from the same samples (paired). `p_value`: one-sided, of "undoing it does not lower the
    shift". `left_by_layer` has an entry for each of `Preprocessing.layers`. `whole_levels`: the
    share of the pixels that are whole levels, k/255, if the tensors were made as this mistake says;
    None where the values are too coarse to tell.
    """

    mistake: str
    mend: str
    left: float
    change: float
    low: float
    high: float
    p_value: float
    left_by_layer: tuple[float, ...]
    whole_levels: float | None = None


@dataclass(frozen=True)
class Preprocessing:
    """The shift at the first `layers` in the deployed condition, on `samples` samples.

    `shift` is the root mean square of the layers' output shifts (design: γ²-weighted ESM), in
    standard deviations of the normalised activation, `low` and `high` bound its 95% interval (None
    where it is withheld). `candidates`: the mistakes that were tried, the smallest shift left
    first; none are tried where the shift is small, and `note` says why where they could not be.
    """

    layers: tuple[str, ...]
    samples: int
    shift: float
    low: float | None = None
    high: float | None = None
    shift_by_layer: tuple[float, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    note: str | None = None
