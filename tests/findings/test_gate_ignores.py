"""Ignores for single layers, and those that are not needed any more."""

from __future__ import annotations

import pytest
from judging import LAST, X, audit_of, branches, check_of, failing, judged, waived
from torch import Tensor, nn

from bnaudit.results import Audit


@pytest.fixture(scope="module")
def wrong() -> Audit:
    return audit_of(branches(dict.fromkeys(LAST, 2.0)), X)


@pytest.fixture(scope="module")
def sound() -> Audit:
    return audit_of(branches(), X)


@pytest.mark.parametrize("glob", ["left.4", "left.*", "*eft*", "[kl]eft.?"])
def test_where_a_layer_is_ignored_the_others_still_fail(wrong: Audit, glob: str) -> None:
    verdict = judged(wrong, per_layer_ignores={glob: ["BN101"]})
    assert failing(verdict) == {"BN101": ("right.4",)}
    assert not verdict.unused_ignores


@pytest.mark.parametrize("name", ["BN101", "BN1", "estimation-shift", "all"])
def test_where_every_layer_of_a_finding_is_ignored_it_is_waived_by_that_setting(
    wrong: Audit, name: str
) -> None:
    verdict = judged(wrong, per_layer_ignores={"*.4": [name]})
    assert verdict.outcome == "pass"
    assert waived(verdict) == {"BN101": f"gate.per_layer_ignores '*.4' {name}"}
    assert verdict.waived[0].finding.layers == LAST


def test_several_settings_that_waive_one_finding_are_all_named(wrong: Audit) -> None:
    given = {"left.*": ["BN101"], "right.*": ["all"]}
    setting = waived(judged(wrong, per_layer_ignores=given))["BN101"]
    assert "'left.*' BN101" in setting
    assert "'right.*' all" in setting


def test_a_glob_is_case_sensitive_and_matches_whole_names(wrong: Audit) -> None:
    for glob in ("LEFT.*", "eft.4", "left"):
        verdict = judged(wrong, per_layer_ignores={glob: ["BN101"]})
        assert failing(verdict) == {"BN101": LAST}
        assert "matches no layer" in verdict.unused_ignores[0]


def test_the_limit_of_a_layer_can_be_ignored_there(wrong: Audit) -> None:
    given = {"fail_on": "nothing", "max_layer_esm": 0.1}
    both = judged(wrong, **given)
    assert failing(both) == {"max_layer_esm": LAST}
    one = judged(wrong, per_layer_ignores={"left.*": ["max_layer_esm"]}, **given)
    assert failing(one) == {"max_layer_esm": ("right.4",)}
    none = judged(wrong, per_layer_ignores={"*": ["max_layer_esm"]}, **given)
    assert none.outcome == "pass"


def test_ignoring_the_limit_of_a_layer_leaves_the_finding(wrong: Audit) -> None:
    verdict = judged(wrong, max_layer_esm=0.1, per_layer_ignores={"*": ["max_layer_esm"]})
    assert failing(verdict) == {"BN101": LAST}


def test_the_regression_of_a_layer_can_be_ignored_there(sound: Audit, wrong: Audit) -> None:
    given = {"fail_on": "nothing"}
    assert set(failing(judged(wrong, sound, **given))["layer_esm"]) == set(LAST)
    one = judged(wrong, sound, per_layer_ignores={"left.*": ["layer_esm"]}, **given)
    assert failing(one)["layer_esm"] == ("right.4",)
    none = judged(wrong, sound, per_layer_ignores={"*": ["layer_esm"]}, **given)
    assert check_of(none, "layer_esm").outcome == "pass"


def test_what_counts_for_nothing_in_a_layer_is_not_hidden_by_too_few_samples() -> None:
    few = audit_of(branches(dict.fromkeys(LAST, 2.0)), X[:10])
    assert judged(few).outcome == "inconclusive"
    assert judged(few, per_layer_ignores={"*": ["all"]}).outcome == "pass"
    verdict = judged(few, per_layer_ignores={"left.*": ["all"]})
    assert verdict.checks[0].layers == ("right.1", "right.4")


class Shared(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.bn = nn.BatchNorm1d(32)
        self.also = self.bn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.first(x))
        return out


def test_a_layer_is_ignored_by_its_other_name_too() -> None:
    audit = audit_of(Shared(), 3 * X + 1)
    assert failing(judged(audit))
    verdict = judged(audit, per_layer_ignores={"also": ["all"]}, select=["BN0", "BN1"])
    assert not [name for name in failing(verdict) if check_of(verdict, name).layers]
    assert not verdict.unused_ignores


def test_ignores_that_match_nothing_any_more_are_reported(sound: Audit) -> None:
    verdict = judged(
        sound,
        max_layer_esm=0.5,
        ignore=["BN101", "BN2,BN304"],
        per_layer_ignores={"left.*": ["BN101"], "head.*": ["all"], "*": ["max_layer_esm"]},
    )
    assert verdict.outcome == "pass"
    unused = set(verdict.unused_ignores)
    assert "gate.ignore BN101: nothing to ignore any more" in unused
    assert "gate.ignore BN304: nothing to ignore any more" in unused
    assert "gate.per_layer_ignores 'left.*' BN101: nothing to ignore any more" in unused
    assert "gate.per_layer_ignores 'head.*' all: matches no layer" in unused
    assert "gate.per_layer_ignores '*' max_layer_esm: nothing to ignore any more" in unused


def test_ignores_that_are_needed_are_not_reported(wrong: Audit) -> None:
    verdict = judged(
        wrong,
        ignore=["BN2"],
        max_layer_esm=0.1,
        per_layer_ignores={"left.*": ["BN101", "max_layer_esm"], "right.*": ["all"]},
    )
    assert verdict.outcome == "pass"
    assert not [line for line in verdict.unused_ignores if "per_layer" in line]


def test_every_ignore_of_a_glob_is_judged_by_itself(wrong: Audit) -> None:
    verdict = judged(wrong, per_layer_ignores={"*": ["BN101", "BN304"]})
    assert verdict.unused_ignores == (
        "gate.per_layer_ignores '*' BN304: nothing to ignore any more",
    )


def test_an_ignore_for_a_baseline_is_needed_as_long_as_the_finding_is_there(wrong: Audit) -> None:
    verdict = judged(wrong, wrong, ignore=["BN101"])
    assert waived(verdict)["BN101"] == "gate.ignore BN101"
    assert not verdict.unused_ignores
