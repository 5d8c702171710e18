"""A Gate as JUnit XML, the form that CI servers read: Jenkins, GitLab, Azure, GitHub's actions.

The elements and attributes are those that Jenkins' xUnit plugin accepts (its junit-10 schema, also
pytest's xunit2 family). There are no times in it, so that the same Gate gives the same file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal
from xml.etree import ElementTree

from bnaudit.report import judged
from bnaudit.report.judged import KINDS, VERDICTS, printable
from bnaudit.results import Check, Gate

Result = Literal["passed", "failure", "skipped"]

NO_TIME = "0"

MOST_LAYERS = 3
"""Named in a test's name, where several checks have the same."""


@dataclass(frozen=True)
class _Case:
    """One testcase: `message` in a line, `text` in full."""

    name: str
    result: Result
    message: str = ""
    text: str = ""
    type: str = ""


def junit(gate: Gate) -> str:
    """The document: a suite for each kind of check, one for waived findings, a testcase a check.

    An inconclusive check is a failure where it makes the gate fail, else skipped; a waived finding
    is skipped.
    """
    suites = _suites(gate)
    cases = [case for _, each in suites for case in each]
    root = ElementTree.Element("testsuites", name=f"bnaudit gate {_subject(gate)}", time=NO_TIME)
    _count(root, cases)
    for name, each in suites:
        root.append(_suite(gate, name, each))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{_allowed(text)}\n'


def _suites(gate: Gate) -> list[tuple[str, list[_Case]]]:
    names = _names(gate.checks)
    suites: dict[str, list[_Case]] = {}
    for kind, title in KINDS.items():
        for name, check in zip(names, gate.checks, strict=True):
            if check.kind == kind:
                suites.setdefault(title, []).append(_case(name, check, gate))
    if gate.waived:
        suites["waived findings"] = [
            _Case(judged.named(each.finding), "skipped", judged.reason(each))
            for each in gate.waived
        ]
    if not gate.checks:  # readers take a report without tests for a broken one
        suites["verdict"] = [_verdict(gate)]
    return list(suites.items())


def _verdict(gate: Gate) -> _Case:
    result: Result = "failure" if gate.exit_code else "passed"
    return _Case("verdict", result, gate.sentence, gate.sentence, gate.outcome)


def _names(checks: Sequence[Check]) -> list[str]:
    """Names that stay the same from run to run, each of them once."""
    names = [judged.label(check) for check in checks]
    often = Counter(names)
    names = [
        f"{name} [{judged.whom(check.layers, MOST_LAYERS)}]"
        if often[name] > 1 and check.layers
        else name
        for name, check in zip(names, checks, strict=True)
    ]
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _case(name: str, check: Check, gate: Gate) -> _Case:
    parts = [check.sentence, judged.whom(check.layers, len(check.layers))]
    if check.remedy:
        parts.append(f"→ {check.remedy}")
    if check.command:
        parts.append(f"  {check.command}")
    text = "\n".join(printable(part) for part in parts if part)
    kind = f"{check.kind}.{check.outcome}"
    return _Case(name, _result(check, gate), check.sentence, text, kind)


def _result(check: Check, gate: Gate) -> Result:
    if check.outcome == "pass":
        return "passed"
    makes_it_fail = check.outcome == "fail" or gate.outcome == "inconclusive"
    return "failure" if makes_it_fail and gate.exit_code else "skipped"


def _suite(gate: Gate, name: str, cases: Sequence[_Case]) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=f"bnaudit: {name}", time=NO_TIME)
    _count(suite, cases)
    suite.set("skipped", str(sum(case.result == "skipped" for case in cases)))
    properties = ElementTree.SubElement(suite, "properties")
    for word, value in _properties(gate):
        ElementTree.SubElement(properties, "property", name=word, value=printable(value))
    for case in cases:
        suite.append(_testcase(case, f"bnaudit.{_subject(gate)}.{name}"))
    return suite


def _testcase(case: _Case, classname: str) -> ElementTree.Element:
    element = ElementTree.Element(
        "testcase", name=printable(case.name), classname=classname, time=NO_TIME
    )
    if case.result != "passed":
        message = printable(case.message)
        result = ElementTree.SubElement(element, case.result, message=message)
        if case.type:
            result.set("type", case.type)
        result.text = case.text
    elif case.text:
        ElementTree.SubElement(element, "system-out").text = case.text
    return element


def _count(element: ElementTree.Element, cases: Sequence[_Case]) -> None:
    element.set("tests", str(len(cases)))
    element.set("failures", str(sum(case.result == "failure" for case in cases)))
    element.set("errors", "0")


def _properties(gate: Gate) -> list[tuple[str, str]]:
    side = gate.subject
    rows = [("verdict", VERDICTS[gate.outcome]), ("sentence", gate.sentence), *judged.about(gate)]
    if side.checkpoint_sha256:
        rows.append(("checkpoint_sha256", side.checkpoint_sha256))
    if side.tool:
        rows.append(("bnaudit", side.tool))
    return [*rows, *(("note", note) for note in judged.notes(gate))]


def _subject(gate: Gate) -> str:
    """The file's name without suffix: readers take dots for levels."""
    name = PurePath(gate.subject.checkpoint or gate.subject.source).stem
    return printable(name).replace(".", "_")


_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _allowed(text: str) -> str:
    """Without the characters that XML 1.0 does not know, not even as references."""
    return _FORBIDDEN.sub("\ufffd", text)
