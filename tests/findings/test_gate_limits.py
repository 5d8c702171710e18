"""Limits of [gate]: exceeded beyond noise they fail, too few data are inconclusive."""

from __future__ import annotations

import math
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
import torch
from audits import digits, digits_net
from hypothesis import given
from hypothesis import strategies as st
from judging import LAST, X, audit_of, branches, check_of, judged
from scipy import stats

from bnaudit.findings.policy import Policy
from bnaudit.results import Audit, Check, Estimate, Gate, LayerAudit

ONLY = {"fail_on": "nothing"}
"""The limits alone."""


@pytest.fixture(scope="module")
def averaged() -> Audit:
    """Wrong in every layer, and less accurate for it, on 497 images."""
    return audit_of(digits_net("averaged"), *digits("test"))


@pytest.fixture(scope="module")
def few() -> Audit:
    """The sound network on 60 images."""
    return audit_of(digits_net("healthy"), *(part[:60] for part in digits("test")))


@pytest.fixture(scope="module")
def healthy() -> Audit:
    return audit_of(digits_net("healthy"), *digits("test"))


def check(audit: Audit, name: str, limit: float) -> Check:
    verdict = judged(audit, **ONLY, **{name: limit})
    found = check_of(verdict, name)
    assert verdict.outcome == found.outcome
    assert verdict.exit_code == (0 if found.outcome == "pass" else 1)
    assert (found.kind, found.severity) == ("limit", "error")
    return found


def shifts(audit: Audit) -> list[Estimate]:
    return [layer.output_shift for layer in audit.audited if layer.output_shift is not None]


def largest(audit: Audit) -> Estimate:
    return max(shifts(audit), key=lambda shift: shift.value)


def total(audit: Audit) -> tuple[float, float, float]:
    """The root mean square of the layers' figures and its limits, by the jackknife's formulas."""
    squared = float(np.mean([x.plain**2 for x in shifts(audit)]))
    without = np.mean([x.left_out_squared_output_shift for x in audit.audited], axis=0)
    k = len(without)
    debiased = squared - (k - 1) * (without.mean() - squared)
    half = stats.t.ppf(0.975, k - 1) * math.sqrt(
        (k - 1) / k * ((without - without.mean()) ** 2).sum()
    )
    low, value, high = (math.sqrt(max(0.0, debiased + side * half)) for side in (-1, 0, 1))
    return low, value, high


def far(limit: float) -> float:
    """What the data have to rule out: an excess of half the limit, or of 0.01."""
    return max(1.5 * limit, limit + 0.01)


def limit_with_far_at(high: float) -> float:
    """The limit that a figure whose interval ends at `high` just passes."""
    return min(high / 1.5, high - 0.01)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95%, from its formula."""
    z = float(stats.norm.ppf(0.975))
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def wrong_answers(audit: Audit) -> tuple[int, int]:
    assert audit.network is not None
    score = audit.network.deployed
    assert score is not None
    return round((1 - score.accuracy) * score.samples), score.samples


def test_a_layer_above_the_limit_beyond_noise_fails_and_is_named(averaged: Audit) -> None:
    worst = largest(averaged)
    found = check(averaged, "max_layer_esm", worst.value / 2)
    assert found.outcome == "fail"
    assert "blocks.3.bn2" in found.layers
    assert (found.value, found.limit) == (worst.value, worst.value / 2)
    assert f"{worst.value:.3f}" in found.sentence
    assert found.remedy is not None
    above = {x.name for x in averaged.audited if x.output_shift and x.output_shift.low is not None}
    assert set(found.layers) <= above


def test_layers_below_the_limit_pass(averaged: Audit) -> None:
    worst = largest(averaged)
    assert worst.high is not None
    found = check(averaged, "max_layer_esm", 1.01 * worst.high)
    assert (found.outcome, found.layers) == ("pass", ())
    assert found.value == worst.value


def test_a_limit_that_noise_hides_is_inconclusive_and_says_how_many_samples_would_do(
    few: Audit,
) -> None:
    high = max(shift.high or 0.0 for shift in shifts(few))
    found = check(few, "max_layer_esm", 0.99 * limit_with_far_at(high))
    assert found.outcome == "inconclusive"
    assert found.layers
    assert "60 samples are too few" in found.sentence
    assert found.remedy is not None
    assert "samples: about" in found.remedy
    assert check(few, "max_layer_esm", 1.01 * limit_with_far_at(high)).outcome == "pass"


def test_the_root_mean_square_over_the_layers_has_a_limit(averaged: Audit, few: Audit) -> None:
    low, value, high = total(averaged)
    found = check(averaged, "max_total_esm", 0.99 * low)
    assert found.outcome == "fail"
    assert found.value == pytest.approx(value)
    assert check(averaged, "max_total_esm", 1.01 * high).outcome == "pass"
    assert (
        check(few, "max_total_esm", 0.99 * limit_with_far_at(total(few)[2])).outcome
        == "inconclusive"
    )


def test_accuracy_has_a_limit(averaged: Audit) -> None:
    """86.9% of 497: surely below 0.95, surely not as low as 0.8, open in between."""
    wrong, n = wrong_answers(averaged)
    low, high = wilson(wrong, n)
    found = check(averaged, "min_accuracy", 0.95)
    assert found.outcome == "fail"
    assert found.value == pytest.approx(1 - wrong / n)
    assert found.limit == pytest.approx(0.95)
    assert check(averaged, "min_accuracy", 0.8).outcome == "pass"
    for accuracy in np.linspace(0.5, 0.99, 50):
        outcome = check(averaged, "min_accuracy", float(accuracy)).outcome
        most = 1 - accuracy
        expected = "fail" if low > most else "inconclusive" if high > far(most) else "pass"
        assert outcome == expected


def test_the_sentence_about_accuracy_has_the_accuracy_and_its_interval(averaged: Audit) -> None:
    wrong, n = wrong_answers(averaged)
    low, high = wilson(wrong, n)
    sentence = check(averaged, "min_accuracy", 0.95).sentence
    assert f"{100 * (1 - wrong / n):.4g}%" in sentence
    assert f"{100 * (1 - high):.4g}% to {100 * (1 - low):.4g}%" in sentence
    assert "below 95%" in sentence


def test_disagreement_has_a_limit(averaged: Audit, few: Audit) -> None:
    assert averaged.network is not None
    assert averaged.network.agreement is not None
    n = averaged.network.compared
    differs = round((1 - averaged.network.agreement) * n)
    low, high = wilson(differs, n)
    assert check(averaged, "max_disagreement", 0.99 * low).outcome == "fail"
    assert check(averaged, "max_disagreement", 1.01 * high).outcome == "pass"
    assert check(few, "max_disagreement", 0.01).outcome == "inconclusive"


def test_cross_entropy_has_a_limit(averaged: Audit) -> None:
    x, y = digits("test")
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(digits_net("averaged")(x), y, reduction="none")
    mean, error = losses.mean().item(), losses.std().item() / math.sqrt(len(losses))
    found = check(averaged, "max_cross_entropy", mean - 2.1 * error)
    assert found.outcome == "fail"
    assert found.value == pytest.approx(mean, rel=1e-4)
    assert "nats" in found.sentence
    assert check(averaged, "max_cross_entropy", mean + 2.1 * error).outcome == "pass"
    assert check(averaged, "max_cross_entropy", mean - 0.3 * error).outcome == "pass"


def test_a_loss_that_is_not_finite_exceeds_every_limit() -> None:
    model = digits_net("healthy")
    with torch.no_grad():
        list(model.parameters())[-2].mul_(1e38)  # the outputs' weight
    audit = audit_of(model, *digits("test"), task="classification")
    found = check(audit, "max_cross_entropy", 1e6)
    assert found.outcome == "fail"
    assert "not finite" in found.sentence


@pytest.mark.parametrize("name", ["max_disagreement", "min_accuracy", "max_cross_entropy"])
def test_a_limit_without_a_figure_fails_and_says_why(name: str) -> None:
    """More samples would not help, so that it is not inconclusive."""
    audit = audit_of(branches(), X, task="other")
    found = check(audit, name, 0.5)
    assert found.outcome == "fail"
    assert name in found.sentence
    assert "class scores" in found.sentence
    assert found.remedy is not None
    assert "take the limit out" in found.remedy


def test_limits_on_layers_without_a_figure_fail(healthy: Audit) -> None:
    layers = tuple(replace(layer, output_shift=None) for layer in healthy.layers)
    for name in ("max_layer_esm", "max_total_esm"):
        found = check(replace(healthy, layers=layers), name, 0.5)
        assert found.outcome == "fail"
        assert "no layer has an output shift" in found.sentence


def test_a_figure_above_its_limit_that_passes_is_not_said_to_be_below(averaged: Audit) -> None:
    wrong, n = wrong_answers(averaged)
    found = check(averaged, "min_accuracy", 1 - wrong / n + 0.001)
    assert found.outcome == "pass"
    assert "not below" in found.sentence
    assert "for certain" in found.sentence


def test_too_few_samples_for_any_interval_are_inconclusive_in_every_limit() -> None:
    audit = audit_of(digits_net("healthy"), *(part[:3] for part in digits("test")))
    for name in ("max_layer_esm", "max_total_esm"):
        assert check(audit, name, 10.0).outcome == "inconclusive"
    assert check(audit, "min_accuracy", 0.9).outcome == "inconclusive"


def test_too_few_samples_fail_unless_the_settings_let_them_pass(few: Audit) -> None:
    tight = {"max_layer_esm": 0.01}
    verdict = judged(few, **ONLY, **tight)
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 1)
    assert "do not tell" in verdict.sentence
    tolerated = judged(few, inconclusive="pass", **ONLY, **tight)
    assert (tolerated.outcome, tolerated.exit_code) == ("inconclusive", 0)
    assert 'inconclusive = "pass"' in tolerated.sentence


def test_what_fails_is_not_tolerated_as_inconclusive(few: Audit) -> None:
    audit = with_loss(few, 5.0, 0.1)
    verdict = judged(audit, max_layer_esm=0.01, max_cross_entropy=2.0, inconclusive="pass", **ONLY)
    assert [c.outcome for c in verdict.checks][:2] == ["fail", "inconclusive"]
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)


def test_without_limits_too_few_samples_are_inconclusive_as_well() -> None:
    verdict = judged(audit_of(branches(), X[:10]))
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 1)
    assert verdict.checks[0].name == "BN101"
    assert judged(audit_of(branches(), X[:10]), fail_on="error").outcome == "pass"


def test_a_shift_near_the_threshold_passes_where_half_more_is_ruled_out() -> None:
    audit = audit_of(branches(dict.fromkeys(LAST, 1.19)), X)
    worst = largest(audit)
    assert worst.high is not None
    limit = worst.value * 1.001
    assert worst.high < 1.5 * limit
    assert check(audit, "max_layer_esm", limit).outcome == "pass"
    strict = Policy(thresholds={"BN101": {"shift": limit}}, ignore=("BN2",))
    assert judged(audit, policy=strict).outcome == "pass"


def test_a_limit_of_zero_fails_what_is_wrong(averaged: Audit) -> None:
    for name in ("max_layer_esm", "max_total_esm", "max_disagreement", "max_cross_entropy"):
        assert check(averaged, name, 0.0).outcome == "fail"
    assert check(averaged, "min_accuracy", 1.0).outcome == "fail"


def test_a_limit_of_zero_asks_for_no_absurd_number_of_samples(healthy: Audit) -> None:
    found = check(healthy, "max_layer_esm", 0.0)
    assert found.outcome == "inconclusive"
    assert found.remedy is not None
    assert "1,000,000,000" not in found.remedy


def test_nothing_wrong_at_all_meets_a_limit_of_zero_errors() -> None:
    x, y = digits("test")
    with torch.no_grad():
        right = digits_net("healthy")(x).argmax(1) == y
    audit = audit_of(digits_net("healthy"), x[right], y[right])
    assert check(audit, "min_accuracy", 1.0).outcome == "pass"


def test_limits_nobody_can_exceed_pass(averaged: Audit) -> None:
    assert check(averaged, "min_accuracy", 0.0).outcome == "pass"
    assert check(averaged, "max_disagreement", 1.0).outcome == "pass"


def test_several_limits_are_each_a_check(averaged: Audit) -> None:
    given = {"max_layer_esm": 0.1, "max_total_esm": 5.0, "min_accuracy": 0.95}
    verdict = judged(averaged, **ONLY, **given)
    assert [c.name for c in verdict.with_outcome("fail")] == ["max_layer_esm", "min_accuracy"]
    assert [c.name for c in verdict.checks if c.kind == "limit"] == [
        "max_layer_esm",
        "min_accuracy",
        "max_total_esm",
    ]


# How the verdict depends on figure, noise and limit, for figures made up on a real Audit.

FEW_EXAMPLES = hypothesis.settings(max_examples=30, deadline=None)

FIGURES = st.floats(0.001, 10)
NOISE = st.floats(1e-4, 5)


def with_loss(audit: Audit, loss: float, error: float) -> Audit:
    assert audit.network is not None
    assert audit.network.deployed is not None
    score = replace(audit.network.deployed, loss=loss, loss_standard_error=error)
    return replace(audit, network=replace(audit.network, deployed=score))


def with_shift(audit: Audit, value: float, error: float, groups: int = 20) -> Audit:
    """Every layer's output shift at `value`, with a standard error of its square."""
    t = float(stats.t.ppf(0.975, groups - 1))
    low, high = (math.sqrt(max(0.0, value**2 + side * t * error)) for side in (-1, 1))
    shift = Estimate(value, value, low, high, 0.0, error, groups)
    swing = error / math.sqrt(groups - 1)
    left_out = tuple(value**2 + side * swing for side in (-1, 1) * (groups // 2))
    figures = {"output_shift": shift, "left_out_squared_output_shift": left_out}
    layers: list[LayerAudit] = [replace(layer, **figures) for layer in audit.layers]
    return replace(audit, layers=tuple(layers))


@FEW_EXAMPLES
@given(loss=FIGURES, error=NOISE, limit=FIGURES)
def test_a_limit_fails_where_the_whole_interval_is_above_it(
    healthy: Audit, loss: float, error: float, limit: float
) -> None:
    outcome = check(with_loss(healthy, loss, error), "max_cross_entropy", limit).outcome
    low, high = loss - 2 * error, loss + 2 * error
    expected = "fail" if low > limit else "inconclusive" if high > far(limit) else "pass"
    assert outcome == expected


def outcomes(name: str, audits: list[Audit], limit: float) -> list[str]:
    return [check(audit, name, limit).outcome for audit in audits]


@FEW_EXAMPLES
@given(value=FIGURES, error=NOISE, limit=FIGURES)
@pytest.mark.parametrize("name", ["max_layer_esm", "max_total_esm", "max_cross_entropy"])
def test_more_samples_only_ever_settle_the_verdict(
    healthy: Audit, name: str, value: float, error: float, limit: float
) -> None:
    """A figure at most at its limit never fails, and one that is half above it never passes,
    however much noise there is: samples decide between inconclusive and the right verdict."""
    made = with_loss if name == "max_cross_entropy" else with_shift
    audits = [made(healthy, value, error / math.sqrt(k)) for k in (1, 4, 100)]
    said = outcomes(name, audits, limit)
    if value <= limit:
        assert "fail" not in said
    if value > far(limit):
        assert "pass" not in said
    order = {"inconclusive": 0, "pass": 1, "fail": 2}
    ranks = [order[outcome] for outcome in said]
    assert ranks == sorted(ranks)


@FEW_EXAMPLES
@given(value=FIGURES, error=NOISE, limit=FIGURES, more=st.floats(1, 3))
@pytest.mark.parametrize("name", ["max_layer_esm", "max_total_esm", "max_cross_entropy"])
def test_a_higher_limit_is_never_failed_where_a_lower_one_is_not(
    healthy: Audit, name: str, value: float, error: float, limit: float, more: float
) -> None:
    made = with_loss if name == "max_cross_entropy" else with_shift
    audit = made(healthy, value, error)
    strict, loose = (check(audit, name, x).outcome for x in (limit, more * limit))
    better = ("fail", "inconclusive", "pass")
    assert better.index(loose) >= better.index(strict)


def test_a_verdict_survives_being_written_and_read(averaged: Audit) -> None:
    verdict = judged(averaged, max_layer_esm=0.1, min_accuracy=0.95, ignore=["BN1"])
    assert Gate.from_json(verdict.to_json()) == verdict
