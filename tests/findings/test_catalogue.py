"""The rules are documented, and the page of documentation is theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bnaudit.errors import InputError
from bnaudit.findings.catalogue import all_rules, find_rule, find_rules
from bnaudit.findings.documentation import markdown_of_all
from bnaudit.findings.policy import Policy
from bnaudit.findings.rule import Rule
from bnaudit.results.findings import SEVERITIES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "findings.md"


def test_the_page_of_findings_is_what_explain_says() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == markdown_of_all(all_rules()), (
        "run: bnaudit explain --all --format markdown > docs/findings.md"
    )


def test_the_stored_state_has_its_twenty_rules() -> None:
    codes = {rule.code for rule in all_rules()}
    assert {f"BN{number:03}" for number in range(1, 21)} <= codes


def test_names_are_unique_and_can_be_typed() -> None:
    names = [rule.name for rule in all_rules()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_a_rule_says_what_why_and_what_to_do(rule: Rule) -> None:
    assert rule.severity in SEVERITIES
    for text in (rule.means, rule.computed, rule.matters, rule.remedy, rule.source):
        assert len(text) > 10
        assert text == text.strip()
    assert "\n" not in rule.remedy
    for threshold in rule.thresholds:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", threshold.name)
        assert len(threshold.reason) > 20, threshold.name
    assert set(rule.unless) <= {other.code for other in all_rules()} - {rule.code}


@pytest.mark.parametrize("wanted", ["BN004", "bn004", " BN004 ", "never-updated", "Never-Updated"])
def test_a_rule_is_found_by_code_or_by_name(wanted: str) -> None:
    assert find_rule(wanted).code == "BN004"


def test_a_code_that_does_not_exist_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match="BN04: no finding has that code or name; did you mean BN"):
        find_rule("BN04")
    with pytest.raises(InputError, match="did you mean never-updated"):
        find_rule("never-update")
    with pytest.raises(InputError, match="bnaudit explain --all lists them"):
        find_rule("xyzzy")


def test_a_family_of_codes_is_found_by_how_they_begin() -> None:
    assert {rule.code[:3] for rule in find_rules("bn1")} == {"BN1"}
    assert [rule.code for rule in find_rules("dead-channels")] == ["BN012"]


WRONG_POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"thresholds": {"BN101": 0.2}}, "give them by name"),
    ({"thresholds": {"BN101": {"shift": "a"}}}, "give a number"),
    ({"thresholds": {"BN101": {"shift": -1}}}, "0 or more"),
    ({"thresholds": {"BN101": {"shft": 1}}}, "it has shift"),
    ({"thresholds": {"BN999": {"shift": 1}}}, "no finding has"),
    ({"severity": {"BN101": "fatal"}}, "give error, warning, info"),
    ({"select": ("BN9",)}, "no finding has"),
    ({"ignore": ("",)}, "no finding has"),
]


@pytest.mark.parametrize(("policy", "says"), WRONG_POLICIES)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Policy(**policy).checked()


def test_a_policy_takes_names_and_several_codes_in_one_text() -> None:
    policy = Policy(
        thresholds={"dead-channels": {"multiple_of_eps": 5}},
        select="BN0,BN1",  # type: ignore[arg-type]
        ignore=("estimation-shift",),
    ).checked()
    assert policy.limits(find_rule("BN012")) == {"multiple_of_eps": 5}
    assert (policy.select, policy.ignore) == (("BN0", "BN1"), ("BN101",))


def test_thresholds_follow_the_one_of_the_shift_unless_they_are_set() -> None:
    policy = Policy(thresholds={"BN101": {"shift": 0.6}, "BN302": {"shift": 0.2}}).checked()
    assert policy.limits(find_rule("BN103"))["shift"] == 0.6
    assert policy.limits(find_rule("BN107"))["shift"] == 0.6
    assert policy.limits(find_rule("BN302"))["shift"] == 0.2
