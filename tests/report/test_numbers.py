"""How figures are written."""

from __future__ import annotations

import math

import pytest

from bnaudit.report.numbers import (
    interval,
    loss,
    percent,
    points,
    short,
    signed,
    signed_loss,
    size,
    span,
)
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


def test_what_rounding_leaves_is_nothing() -> None:
    assert short(3e-17) == short(-3e-17) == short(-0.0) == ".000"
    assert signed(-3e-17) == signed(3e-17) == ".000"


def test_a_small_figure_is_not_nothing() -> None:
    assert short(2e-8) == "2e-8"
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


def test_a_difference_has_its_sign_and_nothing_has_none() -> None:
    assert [signed(value) for value in (0.242, -3.1, 0.0, 2e-7)] == [
        "+.242",
        "-3.10",
        ".000",
        "+2e-7",
    ]
    assert [signed_loss(value) for value in (0.031, -0.35, -0.0001)] == [
        "+0.031",
        "-0.350",
        "0.000",
    ]
    assert [points(value) for value in (0.142, -0.005, 0.0, -0.0001)] == [
        "+14.2",
        "-0.5",
        "0.0",
        "0.0",
    ]
    for write in (signed, signed_loss, points):
        assert write(None) == write(math.nan) == "–"


def test_a_loss_has_three_decimals_while_they_say_something() -> None:
    losses = [0.8844, 12.34, 99.9996, 12345.6, None, math.nan]
    assert [loss(value) for value in losses] == ["0.884", "12.340", "100", "1.2e4", "–", "–"]
    assert signed_loss(-12345.6) == "-1.2e4"


def test_the_limits_of_a_difference_are_written_as_it_is() -> None:
    assert span(0.121, 0.163, points) == "+12.1 to +16.3"
    assert span(-0.001, 0.001, signed) == "-.001 to +.001"
    assert span(None, 0.1, points) == "withheld"


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_234, "1.2 kB"),
        (999_960, "1.0 MB"),
        (123_456_789, "123 MB"),
        (8_000_000_000, "8.0 GB"),
        (3_200_000_000_000, "3.2 TB"),
    ],
)
def test_bytes_are_written_with_their_unit(count: int, written: str) -> None:
    assert size(count) == written
