"""A gate as JUnit XML: valid by its schema, and read back by a library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gates
import junitparser
import pytest
import xmlschema

from bnaudit.report.junit import junit
from bnaudit.results import Gate

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))

GATES = {
    "failing": gates.failing(),
    "passing": gates.passing(),
    "inconclusive": gates.inconclusive(),
    "tolerated": gates.inconclusive(exit_code=0),
    "nasty": gates.nasty(),
    "empty": Gate("pass", "No BatchNorm layers.", gates.AFTER, ()),
    "many": gates.many(500),
}


@pytest.fixture(params=GATES)
def gate(request: pytest.FixtureRequest) -> Gate:
    return GATES[request.param]


def read(gate: Gate) -> junitparser.JUnitXml:
    return junitparser.JUnitXml.fromstring(junit(gate).encode())


def cases(gate: Gate) -> Iterator[tuple[str, junitparser.TestCase]]:
    for suite in read(gate):
        for case in suite:
            yield suite.name, case


def outcome(case: junitparser.TestCase) -> str:
    return type(case.result[0]).__name__ if case.result else "Passed"


def test_the_document_is_valid(gate: Gate) -> None:
    SCHEMA.validate(junit(gate))


def test_the_schema_of_these_tests_refuses_what_readers_refuse() -> None:
    good = junit(gates.failing())
    for was, is_ in (
        ("<testcase name=", "<testcase nam="),
        ("<failure ", "<fail "),
        ("</failure>", "</failure><skipped/>"),
        ('tests="', 'tests="x'),
        ("<testsuites ", '<testsuites skipped="1" '),
    ):
        assert was in good
        with pytest.raises(xmlschema.XMLSchemaException):
            SCHEMA.validate(
                good.replace(was, is_, 1) if "</" not in is_ else good.replace(was, is_)
            )


def test_counts_are_those_of_the_cases(gate: Gate) -> None:
    report = read(gate)
    assert report.tests == sum(suite.tests for suite in report) > 0
    assert report.failures == sum(suite.failures for suite in report)
    for suite in report:
        found = [outcome(case) for case in suite]
        assert suite.tests == len(found)
        assert suite.failures == found.count("Failure")
        assert suite.skipped == found.count("Skipped")
        assert suite.errors == 0


def test_a_report_fails_exactly_where_the_gate_does(gate: Gate) -> None:
    assert (read(gate).failures > 0) == (gate.exit_code == 1)


def test_there_is_a_suite_for_each_kind_of_check() -> None:
    found = {(suite, case.name): outcome(case) for suite, case in cases(gates.failing())}
    assert found == {
        ("bnaudit: findings", "BN101 estimation-shift"): "Failure",
        ("bnaudit: limits", "min_accuracy: accuracy at least 0.9"): "Skipped",
        ("bnaudit: limits", "max_total_esm: output shift over all layers at most 0.2"): "Passed",
        ("bnaudit: against the baseline", "layer_esm: output shift of a layer"): "Failure",
        ("bnaudit: waived findings", "BN201 estimation-shift (bn)"): "Skipped",
        ("bnaudit: waived findings", "BN004 estimation-shift"): "Skipped",
    }


def test_a_failure_tells_what_is_wrong_where_and_what_to_do() -> None:
    (case,) = [case for _, case in cases(gates.failing()) if case.name.startswith("BN101")]
    (failure,) = case.result
    assert failure.message == gates.FAILING.sentence
    assert failure.text.splitlines() == [
        gates.FAILING.sentence,
        "layer1.2.bn1",
        f"→ {gates.FAILING.remedy}",
        f"  {gates.FAILING.command}",
    ]
    assert case.classname == "bnaudit.ckpt.findings"


def test_too_little_data_fail_where_they_make_the_gate_fail_and_are_skipped_else() -> None:
    for exit_code, expected in ((1, "Failure"), (0, "Skipped")):
        found = {case.name: case for _, case in cases(gates.inconclusive(exit_code=exit_code))}
        case = found["min_accuracy: accuracy at least 0.9"]
        assert outcome(case) == expected
        assert case.result[0].message == gates.OPEN.sentence


def test_a_waived_finding_says_why_it_is_skipped() -> None:
    waived = {case.name: case for suite, case in cases(gates.failing()) if "waived" in suite}
    assert waived["BN004 estimation-shift"].result[0].message == "it stands in the baseline already"


def test_the_checkpoint_its_hash_and_the_data_are_properties() -> None:
    for suite in read(gates.failing()):
        told = {each.name: each.value for each in suite.properties()}
        assert told["verdict"] == "FAIL"
        assert told["checkpoint_sha256"] == "cd" * 32
        assert told["data"].startswith("npz:val.npz")
        assert told["baseline"].startswith("main.json")


def test_checks_of_the_same_name_are_told_apart_the_same_way_every_time() -> None:
    checks = [replace(gates.FAILING, layers=(layer,)) for layer in ("a", "b", "b")]
    gate = replace(gates.failing(), checks=tuple(checks), waived=())
    names = [case.name for _, case in cases(gate)]
    assert names == [
        "BN101 estimation-shift [a]",
        "BN101 estimation-shift [b]",
        "BN101 estimation-shift [b] (2)",
    ]
    assert junit(gate) == junit(gate)


def test_characters_that_xml_does_not_know_are_written_out() -> None:
    text = junit(gates.nasty())
    text.encode("utf-8")
    (failure,) = [case for _, case in cases(gates.nasty()) if outcome(case) == "Failure"]
    assert r"\x1b[31m]]>\ud800" in failure.result[0].text


def test_a_gate_without_checks_is_one_test() -> None:
    assert [(case.name, outcome(case)) for _, case in cases(GATES["empty"])] == [
        ("verdict", "Passed")
    ]


def test_a_real_gate_is_valid_and_fails_by_name() -> None:
    sound, broken = gates.measured()
    for gate in (sound, broken):
        SCHEMA.validate(junit(gate))
    assert read(sound).failures == 0
    failed = {case.name.split()[0] for _, case in cases(broken) if outcome(case) == "Failure"}
    assert {"BN101", "layer_esm:", "total_esm:"} <= failed
