"""A verdict follows from the figures alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from reproduce.claim import (
    POINTS,
    Claim,
    Difference,
    Equivalence,
    Row,
    Table,
    outcomes_of,
    verdict_of,
)


@dataclass(frozen=True)
class Figures:
    gain: float
    other: float


def claim(*primary, secondary=()):
    return Claim(
        key="t",
        title="A test",
        says="",
        recipe="",
        seeds=8,
        figures=Figures,
        run=lambda zoo: Figures(0.0, 0.0),
        primary=primary,
        secondary=secondary,
        tables=(Table("T", "", (("gain", POINTS),), (Row("all", (lambda one: one.gain,)),)),),
        plot=lambda figures: Figure(),
    )


GAIN = Difference("t1", "gains", lambda one: one.gain, POINTS)
OTHER = Difference("t2", "gains elsewhere", lambda one: one.other, POINTS)
SAME = Equivalence("t3", "is the same", lambda one: one.other, POINTS, 0.01)


def seeds(gain: float, other: float = 0.0, spread: float = 0.01, n: int = 8) -> list[Figures]:
    noise = np.random.default_rng(3).normal(0, spread, (n, 2))
    noise = spread * (noise - noise.mean(axis=0)) / noise.std(axis=0, ddof=1)
    return [Figures(gain + a, other + b) for a, b in noise]


def verdict(of: Claim, figures: list[Figures]) -> str:
    return verdict_of(of, outcomes_of(of, figures))


def test_a_gain_in_all_seeds_is_reproduced():
    assert verdict(claim(GAIN), seeds(0.05)) == "reproduced"


def test_a_gain_within_the_noise_is_not_reproduced():
    assert verdict(claim(GAIN), seeds(0.002)) == "not reproduced at this scale"
    assert not outcomes_of(claim(GAIN), seeds(-0.002))[0].opposite


def test_a_significant_loss_is_not_reproduced():
    (outcome,) = outcomes_of(claim(GAIN), seeds(-0.05))
    assert outcome.adjusted < 0.001
    assert outcome.opposite
    assert not outcome.holds


def test_all_primary_hypotheses_have_to_hold():
    assert "(1 of 2 primary hypotheses hold)" in verdict(claim(GAIN, OTHER), seeds(0.05))
    assert verdict(claim(GAIN, OTHER), seeds(0.05, 0.05)) == "reproduced"


def test_a_secondary_hypothesis_does_not_decide():
    assert verdict(claim(GAIN, secondary=(OTHER,)), seeds(0.05)) == "reproduced"


def test_secondary_tests_count_in_holms_correction():
    figures = seeds(0.0095)  # t = 2.69, p = 0.031 alone
    alone = outcomes_of(claim(GAIN), figures)[0]
    together = outcomes_of(claim(GAIN, secondary=(OTHER,)), figures)[0]
    assert alone.holds
    assert not together.holds
    assert together.adjusted == pytest.approx(2 * alone.adjusted)
    assert together.test.power < alone.test.power


def test_equivalence_needs_precision():
    assert verdict(claim(SAME), seeds(0.0, spread=0.005)) == "reproduced"
    assert verdict(claim(SAME), seeds(0.0, spread=0.05)) == "not reproduced at this scale"
    wide = replace(SAME, margin=0.1)
    assert verdict(claim(wide), seeds(0.0, spread=0.05)) == "reproduced"
