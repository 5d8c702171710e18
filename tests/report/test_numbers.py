"""How figures are written."""

from __future__ import annotations

import math

import pytest

from bnaudit.report.numbers import interval, percent, short
from bnaudit.results import Estimate


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, ".000"),
        (0.2834, ".283"),
        (0.05, ".050"),
        (0.9994, ".999"),
        (0.99996, "1.00"),
        (1.234, "1.23"),
        (9.994, "9.99"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (99.94, "99.9"),
        (99.96, "100"),
        (371, "371"),
        (9999.4, "9999"),
        (9999.6, "1e4"),
        (-0.2834, "-.283"),
        (-12.34, "-12.3"),
        (-371.2, "-371"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "inf"),
    ],
)
def test_a_figure_is_written_in_three_digits(value: float | None, written: str) -> None:
    assert short(value) == written


def test_a_large_figure_keeps_a_second_digit() -> None:
    assert short(2.1e5) == "2.1e5"


def test_a_small_figure_is_not_nothing() -> None:
    assert short(0.0004) not in (short(0), "")


@pytest.mark.parametrize("exponent", range(-3, 7))
def test_a_figure_is_never_longer_than_five_characters_nor_far_off(exponent: int) -> None:
    for digits in (1.0, 1.049, 2.5, 4.996, 9.94, 9.996):
        value = digits * 10.0**exponent
        assert len(short(value)) <= 5
        assert float(short(value)) == pytest.approx(
            value, rel=0.25 if value > 9999 else 0.005, abs=6e-4
        )


def test_an_interval_is_written_by_its_limits_or_as_withheld() -> None:
    assert interval(Estimate(0.28, 0.28, 0.2701, 0.2959)) == ".270–.296"
    assert interval(Estimate(0.28, 0.28)) == "withheld"


def test_a_share_is_written_as_percent() -> None:
    assert percent(0.8104) == "81.0%"
    assert percent(1.0) == "100.0%"
    assert percent(None) == "–"
