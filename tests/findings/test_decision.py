"""The decision on verifications whose figures are made up, and what its sentences say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnaudit.findings.decision import decide
from bnaudit.results import Change, DataInfo, Decision, Level, Share, Verification
from bnaudit.stats.paired import accuracy_change, mcnemar

WENT_DOWN = Change(0.41, 0.02, -0.39, -0.40, -0.38)
WENT_UP = Change(0.02, 0.15, 0.13, 0.10, 0.16)
STAYED = Change(0.02, 0.015, -0.005, -0.02, 0.01)
AGREEMENT = Share(0.9, 0.87, 0.92)


def without_labels(shift: Change | None = WENT_DOWN, largest: Change | None = None) -> Verification:
    data = DataInfo("npz:heldout.npz", 500, None, 32, 0, 25, "0123")
    return Verification(data, 0, 0.005, shift, largest or shift, agreement=AGREEMENT)


def labelled(
    only_before: int,
    only_after: int,
    both: int,
    n: int,
    *,
    max_loss: float = 0.005,
    shift: Change | None = WENT_DOWN,
) -> Verification:
    return replace(
        without_labels(shift),
        max_loss=max_loss,
        labelled=n,
        accuracy=Change(*accuracy_change(only_before, only_after, both, n)),
        only_before_correct=only_before,
        only_after_correct=only_after,
        p_value=mcnemar(only_before, only_after),
    )


def decided(verification: Verification | None, *, forced: bool = False) -> Decision:
    return decide(verification, changed_layers=3, forced=forced)


GAIN = labelled(50, 334, 1130, 2000)
LOSS = labelled(334, 50, 1130, 2000)
UNDECIDED = labelled(80, 72, 1490, 2000)
NO_LOSS = labelled(80, 72, 1490, 2000, max_loss=0.02)


def test_a_significant_gain_is_accepted_with_its_figures() -> None:
    decision = decided(GAIN)
    assert (decision.level, decision.accept, decision.use) == ("gain", True, True)
    assert (
        "top-1 accuracy 59.0% -> 73.2%, +14.2 points (95% interval +12.4 to +16.1), "
        "on 2,000 samples" in decision.sentence
    )
    assert "McNemar's exact p < 0.001" in decision.sentence
    assert "0.41 -> 0.02" in decision.sentence


def test_without_a_gain_it_is_accepted_where_a_loss_is_ruled_out() -> None:
    decision = decided(NO_LOSS)
    assert (decision.level, decision.accept) == ("no-loss", True)
    assert "no significant gain (McNemar's exact p = 0.57)" in decision.sentence
    assert "a loss of more than the allowed 2 points is ruled out" in decision.sentence


def test_an_undecided_one_is_refused_and_says_what_failed_and_what_would_settle_it() -> None:
    decision = decided(UNDECIDED)
    assert (decision.level, decision.accept, decision.use) == ("undecided", False, False)
    assert "neither is the gain significant" in decision.sentence
    assert "nor is a loss of more than the allowed 0.5 points ruled out" in decision.sentence
    assert decision.samples_needed == 300_000
    assert "at this difference about 300,000 verification samples" in decision.sentence


def test_a_loss_beyond_what_is_allowed_is_refused() -> None:
    decision = decided(LOSS)
    assert (decision.level, decision.accept) == ("loss", False)
    assert "-14.2 points" in decision.sentence
    assert "a loss of more than the allowed 0.5 points" in decision.sentence
    assert decision.samples_needed is None


def test_a_significant_loss_that_may_be_within_what_is_allowed_is_still_a_loss() -> None:
    decision = decided(labelled(60, 35, 1490, 2000))
    assert (decision.level, decision.accept) == ("loss", False)
    assert "a significant loss (McNemar's exact p = 0.013)" in decision.sentence
    assert decision.samples_needed == 3200


def test_a_small_significant_loss_that_is_surely_allowed_is_accepted() -> None:
    decision = decided(labelled(30, 5, 19_000, 20_000))
    assert (decision.level, decision.accept) == ("no-loss", True)


def test_at_the_allowed_loss_no_number_of_samples_would_do() -> None:
    decision = decided(labelled(8, 7, 149, 200))
    assert decision.level == "undecided"
    assert decision.samples_needed is None
    assert "no practical number of verification samples" in decision.sentence


def test_a_loss_can_be_forbidden_altogether() -> None:
    decision = decided(labelled(60, 70, 1400, 2000, max_loss=0.0))
    assert decision.level == "undecided"
    assert "the allowed 0 points" in decision.sentence


def test_a_limit_next_to_the_margin_is_shown_with_the_decimals_that_tell_them_apart() -> None:
    verification = replace(NO_LOSS, max_loss=0.005, accuracy=Change(0.8, 0.8, 0.0, -0.0046, 0.004))
    assert decided(verification).level == "no-loss"
    assert "(95% interval -0.46 to +0.40)" in decided(verification).sentence


def test_a_narrow_interval_is_shown_with_the_decimals_that_it_needs() -> None:
    decision = decided(labelled(300, 310, 99_000, 100_000))
    assert "99.30% -> 99.31%, +0.01 points (95% interval -0.04 to +0.06)" in decision.sentence


def test_a_problem_that_is_not_in_the_statistics_is_said_to_be_elsewhere() -> None:
    for verification in (UNDECIDED, NO_LOSS):
        sentence = decided(verification).sentence
        assert "did not fit these data (largest layer shift 0.41 -> 0.02)" in sentence
        assert "that is not what costs accuracy" in sentence
        assert "look at the data, the preprocessing and the weights" in sentence


def test_few_samples_do_not_say_that_the_problem_is_elsewhere() -> None:
    sentence = decided(labelled(8, 9, 149, 200)).sentence
    assert "not what costs accuracy" not in sentence
    assert "so few samples do not tell whether that costs accuracy" in sentence


def test_statistics_that_fitted_already_are_said_to() -> None:
    for verification in (labelled(80, 72, 1490, 2000, shift=STAYED), without_labels(STAYED)):
        sentence = decided(verification).sentence
        assert re.search(r"fitted (these data )?already \(largest layer shift 0\.02\)", sentence)


def test_a_shift_that_rose_is_laid_to_the_calibration_data() -> None:
    for verification in (
        labelled(80, 72, 1490, 2000, shift=WENT_UP),
        labelled(50, 334, 1130, 2000, shift=WENT_UP),
        without_labels(WENT_UP),
    ):
        sentence = decided(verification).sentence
        assert "0.02 -> 0.15" in sentence
        assert "The calibration data differ from the verification data" in sentence


def test_without_labels_a_better_fit_is_accepted_and_no_proof() -> None:
    decision = decided(without_labels())
    assert (decision.level, decision.accept) == ("better-fit", True)
    assert "0.41 -> 0.02 (95% interval of the difference -0.4 to -0.38)" in decision.sentence
    assert "cannot be known whether accuracy rose or fell" in decision.sentence
    assert "stays the same on 90.0% of the samples" in decision.sentence


@pytest.mark.parametrize(
    "shift",
    [WENT_UP, STAYED, Change(0.4, 0.1, -0.3), None],
    ids=["worse", "not significant", "no interval", "no figures"],
)
def test_without_labels_anything_else_is_refused(shift: Change | None) -> None:
    decision = decided(without_labels(shift))
    assert (decision.level, decision.accept) == ("worse-fit", False)
    assert "500 samples" in decision.sentence
    assert "cannot be known whether accuracy rose or fell" in decision.sentence


def test_outputs_that_are_no_classes_are_not_spoken_of_as_accuracy() -> None:
    verification = replace(without_labels(), agreement=None, relative_rms=0.123)
    sentence = decided(verification).sentence
    assert "accuracy" not in sentence
    assert "moved by 0.12, relative RMS" in sentence


def test_without_verification_nothing_is_proven_and_the_way_is_shown() -> None:
    decision = decided(None)
    assert (decision.level, decision.accept, decision.use) == ("unverified", True, True)
    assert "nothing proves that the new statistics help" in decision.sentence
    assert "--verify" in decision.sentence
    assert "verify=" in decision.sentence


@pytest.mark.parametrize("verification", [None, GAIN, LOSS])
@pytest.mark.parametrize("forced", [False, True])
def test_without_a_changed_layer_there_is_nothing_to_use(
    verification: Verification | None, forced: bool
) -> None:
    decision = decide(verification, changed_layers=0, forced=forced)
    assert decision.level == "nothing-to-change"
    assert not decision.use


def test_force_overrides_a_refusal_and_says_so() -> None:
    for verification in (LOSS, UNDECIDED, without_labels(WENT_UP)):
        decision = decided(verification, forced=True)
        assert (decision.accept, decision.forced, decision.use) == (False, True, True)
        assert decision.sentence.startswith("Not accepted")
        assert "--force" in decision.sentence


def test_force_is_not_spoken_of_where_nothing_was_refused() -> None:
    for verification in (GAIN, NO_LOSS, without_labels(), None):
        assert decided(verification, forced=True) == decided(verification)


def test_missing_counts_leave_the_number_of_samples_open() -> None:
    bare = replace(UNDECIDED, only_before_correct=None, only_after_correct=None, p_value=None)
    decision = decided(bare)
    assert decision.level == "undecided"
    assert decision.samples_needed is None
    assert "more verification samples may settle it" in decision.sentence


def test_the_p_value_is_worked_out_where_it_is_not_given() -> None:
    assert decided(replace(GAIN, p_value=None)) == decided(GAIN)


LABELLED = ("gain", "no-loss", "loss", "undecided")


@settings(deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(121, 5000),
    st.sampled_from([0.0, 0.001, 0.005, 0.02]),
    st.sampled_from([WENT_DOWN, WENT_UP, STAYED, None]),
)
def test_every_labelled_case_is_decided_by_the_rule_and_explained(
    only_before: int, only_after: int, n: int, max_loss: float, shift: Change | None
) -> None:
    verification = labelled(only_before, only_after, 0, n, max_loss=max_loss, shift=shift)
    decision = decided(verification)
    accuracy = verification.accuracy
    assert accuracy is not None
    assert accuracy.low is not None
    gain = mcnemar(only_before, only_after) < 0.05 and only_after > only_before
    assert decision.level in LABELLED
    assert decision.accept == (gain or accuracy.low > -max_loss)
    assert (decision.level == "gain") == gain
    assert f"on {n:,} samples" in decision.sentence
    assert re.search(r"[+-]\d+\.\d+ points \(95% interval [+-][\d.]+ to [+-]", decision.sentence)
    assert "nan" not in decision.sentence
    assert len(re.findall(r"\.(?: |$)", decision.sentence)) <= 3
    if decision.samples_needed is not None:
        assert f"{decision.samples_needed:,} verification samples" in decision.sentence
        assert decision.samples_needed >= n


def test_every_level_is_reached() -> None:
    verifications = [GAIN, NO_LOSS, LOSS, UNDECIDED, without_labels(), without_labels(WENT_UP)]
    verifications.append(replace(GAIN, not_finite=1))
    levels = {decided(v).level for v in [*verifications, None]}
    levels.add(decide(None, changed_layers=0, forced=False).level)
    assert levels == set(get_args(Level))
