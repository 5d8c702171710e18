"""Findings that are there on one side alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from shifted_chains import audit_of, between, chain, gaussian, measured

from bnaudit.results import Audit, Finding


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


def of(audit: Audit, code: str) -> Finding:
    return next(finding for finding in audit.findings if finding.code == code)


def test_a_shift_that_is_new_is_gained_and_one_that_is_mended_lost() -> None:
    right, wrong = measured(0.0, 0.0), measured(0.5, 0.0)
    assert "BN101" in codes(between(right, wrong).gained)
    assert "BN101" in codes(between(wrong, right).lost)
    assert "BN101" not in codes(between(wrong, right).gained)


def test_what_both_have_is_neither() -> None:
    before, after = measured(0.5, 0.0), measured(0.6, 0.0, seed=1)
    changes = between(before, after)
    assert of(after, "BN101").layers == ("0",)
    assert "BN101" not in codes(changes.gained)
    assert "BN101" not in codes(changes.lost)


def test_a_finding_of_one_more_layer_is_gained_for_that_layer() -> None:
    before, after = measured(0.5, 0.0), measured(0.5, 0.5)
    assert of(after, "BN101").layers == ("0", "1")
    (gained,) = (x for x in between(before, after).gained if x.code == "BN101")
    assert gained.layers == ("1",)
    assert gained.sentence == of(after, "BN101").sentence
    (lost,) = (x for x in between(after, before).lost if x.code == "BN101")
    assert lost.layers == ("1",)


def test_layers_that_were_renamed_keep_their_findings() -> None:
    model = chain(0.5, 0.0)
    before = audit_of(torch.nn.Sequential(model), gaussian())
    after = audit_of(model, gaussian())
    changes = between(before, after)
    assert [layer.before_name for layer in changes.renamed] == ["0.0", "0.1"]
    assert "BN101" in codes(after.findings)
    assert changes.gained == changes.lost == ()


def test_a_finding_without_layers_is_gained_where_its_code_is_new() -> None:
    audit = measured(0.5)
    whole = replace(of(audit, "BN101"), code="BN399", layers=())
    other = replace(audit, findings=(*audit.findings, whole))
    assert codes(between(audit, other).gained) == ["BN399"]
    assert codes(between(other, audit).lost) == ["BN399"]
    assert between(other, other).gained == ()
