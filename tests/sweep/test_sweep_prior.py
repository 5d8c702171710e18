"""`sweep_prior`: the same figures as `recalibrate --prior`, and which strength is best."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sweep_inputs import brighter, digits, pixels, sample_model
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results.sweep import Sweep
from bnaudit.verbs.sweep_prior import sweep_prior


@cache
def swept() -> Sweep:
    """Twelve calibration images of the very data that the estimates belong to."""
    return sweep_prior(
        sample_model("healthy"), digits("train", 12), verify=digits("test"), values=[0, 16, 1e6]
    )


@pytest.mark.parametrize("strength", [0.0, 24.0])
def test_every_point_is_what_recalibrate_gives_with_this_prior(strength: float) -> None:
    data = brighter("train", 12), brighter("test", 150)
    sweep = sweep_prior(sample_model("healthy"), data[0], verify=data[1], values=[strength])
    made = bnaudit.recalibrate(
        sample_model("healthy"), data[0], verify=data[1], prior=strength, force=True
    )
    verification = made.report.verification
    assert verification is not None
    assert verification.accuracy is not None
    assert verification.loss is not None
    assert verification.layer_shift is not None
    (point,) = sweep.points
    assert point.accuracy_change is not None
    assert point.accuracy_change.difference == pytest.approx(verification.accuracy.difference)
    assert point.loss_change is not None
    assert point.loss_change.after == pytest.approx(verification.loss.after, rel=1e-5)
    assert point.shift is not None
    assert point.shift.value == pytest.approx(verification.layer_shift.after, rel=0.05)


def test_an_endless_prior_is_the_estimates() -> None:
    last = swept().points[-1]
    assert last.scores.agreement is not None
    assert last.scores.agreement.value == 1.0
    (data,) = swept().data
    assert last.scores.loss is not None
    assert data.estimates.loss is not None
    assert last.scores.loss.value == pytest.approx(data.estimates.loss.value, rel=1e-3)


def test_no_prior_is_exact_statistics_which_are_not_compared_with_themselves() -> None:
    first = swept().points[0]
    (data,) = swept().data
    assert data.exact == first.scores
    assert first.loss_from_exact is None
    assert swept().points[1].loss_from_exact is not None


def test_old_statistics_help_where_they_fit_and_new_ones_are_of_few_samples() -> None:
    conclusion = swept().conclusion("best")
    assert conclusion is not None
    assert conclusion.value == 1e6
    assert conclusion.significant
    assert conclusion.loss_gain is not None
    assert conclusion.loss_gain.high is not None
    assert conclusion.loss_gain.high < 0
    assert [finding.code for finding in swept().findings] == ["BN122"]


def test_the_gain_is_of_the_half_that_did_not_choose() -> None:
    conclusion = swept().conclusion("best")
    assert conclusion is not None
    assert conclusion.gain is not None
    right = round(conclusion.gain.before * 248)
    assert conclusion.gain.before == pytest.approx(right / 248)


def test_a_prior_of_statistics_that_do_not_fit_is_not_wanted() -> None:
    sweep = sweep_prior(
        sample_model("healthy"), brighter("train", 100), verify=brighter("test", 200)
    )
    conclusion = sweep.conclusion("best")
    assert conclusion is not None
    assert conclusion.value == 0
    assert not conclusion.significant
    assert "none is shown to help" in conclusion.sentence
    assert sweep.findings == ()
    shifts = [point.shift.value for point in sweep.points if point.shift is not None]
    np.testing.assert_array_less(shifts[:-1], shifts[1:])


def test_no_prior_competes_where_it_is_not_asked_for() -> None:
    sweep = sweep_prior(
        sample_model("healthy"), brighter("train", 64), verify=brighter("test", 150), values=[8, 64]
    )
    conclusion = sweep.conclusion("best")
    assert conclusion is not None
    assert sweep.values == (8, 64)
    assert conclusion.value == 0
    assert "None of the priors that were tried has a lower loss" in conclusion.sentence
    assert set(conclusion.candidates) <= {8, 64}


def test_a_gain_that_is_not_certain_is_told_as_such() -> None:
    sweep = sweep_prior(
        sample_model("healthy"), digits("train", 64), verify=digits("test", 40), values=[0, 64]
    )
    conclusion = sweep.conclusion("best")
    assert conclusion is not None
    assert conclusion.value == 64
    assert not conclusion.significant
    assert conclusion.sentence.endswith("; a lower loss is not shown (95%).")


def test_without_labels_nothing_is_chosen() -> None:
    few = TensorDataset(pixels("train", 10)[0])
    sweep = sweep_prior(sample_model("healthy"), few, verify_split=0.5, values=[0, 8])
    assert sweep.conclusions == ()
    assert any("no labels" in note for note in sweep.notes)


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(InputError, match="-1 is no strength of a prior; give a number, 0 or more"):
        sweep_prior(sample_model("healthy"), digits("train", 8), values=[-1, 0])
    with pytest.raises(InputError, match="give verify or verify_split, not both"):
        sweep_prior(
            sample_model("healthy"),
            digits("train", 8),
            verify=digits("test", 8),
            verify_split=0.5,
        )
