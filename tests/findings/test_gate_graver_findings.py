"""What of a finding is new where it stands in the baseline already, or could have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from judging import LAST, X, audit_of, branches, failing, judged, waived
from torch import nn

from bnaudit.findings.policy import Policy
from bnaudit.results import Audit, Gate

SHA = "5" * 64


def reset() -> nn.Module:
    """One layer as it was before training."""
    model = branches()
    with torch.no_grad():
        layer = model.get_submodule(LAST[0])
        assert isinstance(layer, nn.BatchNorm1d)
        layer.reset_running_stats()
        layer.num_batches_tracked.fill_(1000)
    return model


@pytest.fixture(scope="module")
def sound() -> Audit:
    return audit_of(branches(), X)


@pytest.fixture(scope="module")
def after_reset() -> Audit:
    return audit_of(reset(), X)


def of_file(audit: Audit, sha256: str) -> Audit:
    return replace(audit, model=replace(audit.model, checkpoint_sha256=sha256))


def test_a_stored_state_that_is_broken_since_the_baseline_fails(
    sound: Audit, after_reset: Audit
) -> None:
    before, after = of_file(sound, SHA), of_file(after_reset, SHA.replace("5", "6"))
    assert failing(judged(after, before))["BN004"] == (LAST[0],)


def test_what_only_a_newer_version_finds_in_the_same_file_is_waived(after_reset: Audit) -> None:
    now = of_file(after_reset, SHA)
    older = replace(now, findings=tuple(f for f in now.findings if f.code != "BN004"))
    verdict = judged(now, older)
    assert verdict.outcome == "pass"
    assert waived(verdict)["BN004"] == "same weights"


def test_a_finding_that_became_graver_fails_though_the_baseline_has_it(after_reset: Audit) -> None:
    as_information = tuple(
        replace(finding, severity="info") if finding.code == "BN004" else finding
        for finding in after_reset.findings
    )
    # Of the same network on other samples: figures that are equal are those of the same weights.
    before = replace(audit_of(reset(), X[:390]), findings=as_information)
    keep = Policy(ignore=("BN2",))
    assert "BN004" in failing(judged(after_reset, before, policy=keep))
    assert "BN004" not in failing(judged(before, after_reset, policy=keep))


def test_a_verdict_on_figures_that_improved_is_read_back(sound: Audit, after_reset: Audit) -> None:
    verdict = judged(sound, after_reset)
    assert verdict.outcome == "pass"
    assert min(check.value or 0.0 for check in verdict.checks) < 0
    assert Gate.from_json(verdict.to_json()) == verdict
