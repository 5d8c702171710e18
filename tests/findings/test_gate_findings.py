"""Which findings make the gate fail: by their severity, and what selects and ignores them."""

from __future__ import annotations

import pytest
from judging import LAST, Branches, X, audit_of, branches, failing, judged, waived
from torch import nn

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results import SEVERITIES, Audit
from bnaudit.results.findings import Severity


@pytest.fixture(scope="module")
def sound() -> Audit:
    return audit_of(branches(), X)


@pytest.fixture(scope="module")
def wrong() -> Audit:
    """Two layers whose estimates are wrong: BN101, a warning."""
    return audit_of(branches(dict.fromkeys(LAST, 2.0)), X)


def test_a_sound_model_passes(sound: Audit) -> None:
    verdict = judged(sound)
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert verdict.sentence.startswith("1 check passed. Healthy:")


def test_wrong_estimates_fail_and_name_their_layers(wrong: Audit) -> None:
    verdict = judged(wrong)
    assert (verdict.outcome, verdict.exit_code) == ("fail", 1)
    assert failing(verdict) == {"BN101": LAST}
    (check,) = verdict.with_outcome("fail")
    assert check.severity == "warning"
    assert check.title == "estimation-shift"
    assert check.remedy is not None
    assert "BN101 estimation-shift" in verdict.sentence


def test_what_fails_is_told_first_in_the_sentence_and_the_checks(wrong: Audit) -> None:
    verdict = judged(wrong, max_total_esm=5.0, max_layer_esm=5.0)
    assert [check.outcome for check in verdict.checks] == ["fail", "pass", "pass"]
    assert verdict.outcome == "fail"


@pytest.mark.parametrize("severity", ["error", "warning", "info"])
@pytest.mark.parametrize("fail_on", ["error", "warning", "info", "nothing"])
def test_a_finding_fails_where_it_is_as_grave_as_asked(
    wrong: Audit, severity: Severity, fail_on: str
) -> None:
    policy = bnaudit.Policy(severity={"BN101": severity}, select=("BN101",))
    verdict = judged(wrong, fail_on=fail_on, policy=policy)
    fails = SEVERITIES.index(severity) <= [*SEVERITIES, "nothing"].index(fail_on)
    fails = fails and fail_on != "nothing"
    assert verdict.outcome == ("fail" if fails else "pass")
    assert [f.code for f in verdict.findings] == ([] if fails else ["BN101"])
    assert not verdict.waived


def test_findings_that_do_not_count_are_told_to_be_so(wrong: Audit) -> None:
    (check,) = judged(wrong, fail_on="nothing").checks
    assert 'fail_on = "nothing"' in check.sentence


@pytest.mark.parametrize("name", ["BN101", "bn101", "BN1", "BN", "estimation-shift", "BN101,BN304"])
def test_a_finding_is_ignored_by_its_code_its_beginning_or_its_name(
    wrong: Audit, name: str
) -> None:
    verdict = judged(wrong, ignore=[name])
    assert verdict.outcome == "pass"
    assert waived(verdict)["BN101"] == f"gate.ignore {name.partition(',')[0]}"
    assert "1 finding left out" in verdict.checks[0].sentence


@pytest.mark.parametrize("name", ["BN2", "BN102", "BN0", "accumulates-over-depth", "BN305"])
def test_ignoring_others_leaves_the_finding(wrong: Audit, name: str) -> None:
    assert failing(judged(wrong, ignore=[name])) == {"BN101": LAST}


@pytest.mark.parametrize(
    ("select", "counts"),
    [
        (["BN101"], True),
        (["BN1"], True),
        (["estimation-shift"], True),
        (["BN2", "BN1"], True),
        ("BN101", True),
        (["BN2"], False),
        (["BN0"], False),
    ],
)
def test_where_codes_are_selected_only_they_count(
    wrong: Audit, select: object, counts: bool
) -> None:
    verdict = judged(wrong, select=select)
    assert verdict.outcome == ("fail" if counts else "pass")
    if not counts:
        assert "BN101" in [finding.code for finding in verdict.findings]


def test_what_is_selected_and_ignored_is_ignored(wrong: Audit) -> None:
    assert judged(wrong, select=["BN1"], ignore=["BN101"]).outcome == "pass"


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("select", ["BN999"], "gate.select"),
        ("ignore", ["estimation-shfit"], "gate.ignore"),
        ("per_layer_ignores", {"left.*": ["BN10x"]}, "gate.per_layer_ignores 'left.*'"),
    ],
)
def test_codes_that_do_not_exist_are_refused_with_the_setting(
    wrong: Audit, setting: str, value: object, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        judged(wrong, **{setting: value})
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_code_that_is_misspelt_is_told_the_nearest(wrong: Audit) -> None:
    with pytest.raises(InputError, match="estimation-shift"):
        judged(wrong, ignore=["estimation-shfit"])


def test_every_finding_stands_in_one_place(wrong: Audit) -> None:
    """A check, waived, or below the severity: nothing that was found is lost."""
    for settings in ({}, {"ignore": ["BN1"]}, {"fail_on": "error"}, {"select": ["BN2"]}):
        verdict = judged(wrong, **settings)
        codes = [c.name for c in verdict.checks if c.kind == "finding" and c.name != "findings"]
        codes += [each.finding.code for each in verdict.waived]
        codes += [finding.code for finding in verdict.findings]
        assert sorted(codes) == sorted(finding.code for finding in wrong.findings)


def test_a_model_without_batchnorm_passes_with_a_note() -> None:
    verdict = judged(audit_of(nn.Linear(32, 3), X), max_layer_esm=0.1)
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert "no BatchNorm layer" in verdict.sentence


def test_limits_that_nothing_was_measured_for_are_named_where_there_is_no_batchnorm() -> None:
    audit = audit_of(nn.Linear(32, 3), X)
    (note,) = judged(audit, min_accuracy=0.9, max_layer_esm=0.1).notes
    assert "max_layer_esm, min_accuracy" in note
    assert not judged(audit).notes


def test_a_layer_that_was_reset_fails_by_its_stored_state() -> None:
    model = branches()
    layer = model.get_submodule("left.4")
    assert isinstance(layer, nn.BatchNorm1d)
    layer.reset_running_stats()
    assert failing(judged(audit_of(model, X)))["BN004"] == ("left.4",)


def test_a_network_that_was_never_trained_fails() -> None:
    assert judged(audit_of(Branches(), X)).outcome == "fail"
