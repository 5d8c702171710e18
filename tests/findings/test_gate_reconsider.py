"""A saved Audit under other settings is judged as a new measurement under them would be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audits import digits, digits_net
from judging import LAST, X, audit_of, branches, failing, judged
from torch import Tensor, nn

from bnaudit.errors import InputError
from bnaudit.findings.gate.reconsider import reconsider
from bnaudit.findings.policy import Policy
from bnaudit.report.files import read_results, write_results
from bnaudit.results import Audit, Finding

POLICIES = {
    "as it is": Policy(),
    "a lower threshold": Policy(thresholds={"BN101": {"shift": 0.02}}),
    "a higher threshold": Policy(thresholds={"BN101": {"shift": 0.4}}),
    "other grades": Policy(severity={"BN101": "error", "BN201": "info", "BN004": "info"}),
    "a family ignored": Policy(ignore=("BN2",)),
    "a code ignored": Policy(ignore=("BN101",)),
    "a family selected": Policy(select=("BN1",)),
    "the stored state alone": Policy(select=("BN0",)),
    "all at once": Policy(
        thresholds={"estimation-shift": {"shift": 0.3}},
        severity={"BN101": "error"},
        ignore=("BN203",),
    ),
}


def reset(model: nn.Module) -> nn.Module:
    """One layer as it was made: BN004, which the stored state gives away."""
    layer = model.get_submodule("blocks.1.bn1")
    assert isinstance(layer, nn.BatchNorm2d)
    layer.reset_running_stats()
    return model


def measured(name: str, policy: Policy) -> Audit:
    return audit_of(reset(digits_net(name)), *digits("test"), policy=policy)


@pytest.fixture(scope="module")
def saved() -> Audit:
    """Measured under the default policy, written and read."""
    return Audit.from_json(measured("small_batch", Policy()).to_json())


def plain(findings: tuple[Finding, ...]) -> list[Finding]:
    """Without their evidence, in which lists stand for tuples once it was in a file."""
    return [replace(finding, evidence={}) for finding in findings]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_a_saved_audit_gives_the_findings_that_a_new_measurement_gives(
    saved: Audit, policy: Policy
) -> None:
    policy = policy.checked()
    new, again = measured("small_batch", policy), reconsider(saved, policy)
    assert plain(again.findings) == plain(new.findings)
    assert again.verdict == new.verdict


def test_what_was_found_in_the_stored_state_is_kept(saved: Audit) -> None:
    again = reconsider(saved, Policy(thresholds={"BN101": {"shift": 0.9}}))
    assert [f.code for f in again.findings if f.code.startswith("BN0")] == ["BN004"]
    assert "BN101" not in [finding.code for finding in again.findings]


def test_the_figures_of_the_audit_stay(saved: Audit) -> None:
    again = reconsider(saved, Policy(ignore=("BN1",)))
    assert replace(again, findings=(), verdict=None) == replace(saved, findings=(), verdict=None)


def test_reconsidering_twice_changes_nothing_more(saved: Audit) -> None:
    for policy in POLICIES.values():
        policy = policy.checked()
        once = reconsider(saved, policy)
        assert reconsider(once, policy) == once


def test_a_policy_that_was_stricter_when_it_was_saved_does_not_stick() -> None:
    strict = measured("small_batch", Policy(thresholds={"BN101": {"shift": 0.02}}))
    assert plain(reconsider(strict, Policy()).findings) == plain(
        measured("small_batch", Policy()).findings
    )


def test_a_finding_of_another_version_is_kept(saved: Audit) -> None:
    foreign = replace(saved.findings[0], code="BN399", name="of-tomorrow", severity="warning")
    audit = replace(saved, findings=(*saved.findings, foreign))
    assert "BN399" in [finding.code for finding in reconsider(audit, Policy()).findings]
    assert "BN399" in failing(judged(audit))


@pytest.fixture(scope="module")
def two() -> Audit:
    return audit_of(branches(dict.fromkeys(LAST, 2.0)), X)


def test_the_gate_judges_by_the_thresholds_in_force_now(two: Audit) -> None:
    assert "BN101" in failing(judged(two))
    high = Policy(thresholds={"BN101": {"shift": 0.9}}, ignore=("BN2",))
    assert judged(two, policy=high).outcome == "pass"


def test_both_sides_are_judged_by_the_same_thresholds(two: Audit) -> None:
    """A baseline that was written under a lax threshold accepts what it holds all the same."""
    lax = Policy(thresholds={"BN101": {"shift": 0.9}}, ignore=("BN2",))
    baseline = audit_of(branches(dict.fromkeys(LAST, 2.0)), X, policy=lax)
    assert not baseline.findings
    verdict = judged(two, baseline)
    assert verdict.outcome == "pass"
    assert [each.setting for each in verdict.waived] == ["baseline"]


def test_thresholds_that_do_not_exist_are_refused(two: Audit) -> None:
    for thresholds in ({"BN101": {"shfit": 0.1}}, {"BN999": {"shift": 0.1}}):
        with pytest.raises(InputError):
            judged(two, policy=Policy(thresholds=thresholds))


def test_a_baseline_is_the_same_without_the_arrays_of_its_channels(
    saved: Audit, tmp_path: Path
) -> None:
    """It is one file: no rule that is concluded anew may need what stands beside it."""
    whole = measured("small_batch", Policy())
    write_results(whole, tmp_path, plots=False)
    read = read_results(tmp_path)
    assert read.channels is not None
    assert saved.channels is None
    assert reconsider(read, Policy()).findings == reconsider(saved, Policy()).findings


def test_a_layer_without_an_output_shift_is_judged_from_a_file_as_in_memory() -> None:
    with torch.no_grad():
        model = branches({"left.4": 1.5})
        weight = model.get_submodule("right.1").weight
        assert isinstance(weight, Tensor)
        weight.zero_()  # no output shift at all in this layer
    audit = audit_of(model, X)
    read = Audit.from_json(audit.to_json())
    ours, theirs = judged(audit), judged(read)
    assert failing(ours) == failing(theirs)
    assert ours.sentence == theirs.sentence
