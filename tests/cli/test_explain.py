"""`bnaudit explain`: a code, all codes, a table; for people, pages and programs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from workplace import Run

from bnaudit.findings.catalogue import all_rules, find_rule


@pytest.mark.parametrize("wanted", ["BN012", "bn012", "dead-channels"])
def test_a_code_or_name_is_explained(bnaudit: Run, wanted: str) -> None:
    ran = bnaudit("explain", wanted)
    said = " ".join(ran.out.split())
    assert (ran.code, ran.err) == (0, "")
    assert said.startswith("BN012 dead-channels (info) In some channels the variance")
    for part in ("How it is computed.", "Why it matters.", "What to do.", "Source:"):
        assert part in said
    assert "multiple_of_eps = 1" in said
    assert "--threshold BN012.multiple_of_eps=" in said
    assert "[thresholds.BN012]" in said
    assert "\x1b" not in ran.out
    assert "**" not in ran.out  # the Markdown is rendered


def test_without_a_code_there_is_a_table_of_all(bnaudit: Run) -> None:
    lines = bnaudit("explain").out.splitlines()
    assert lines[0].split() == ["code", "name", "severity", "meaning"]
    first = {line.split()[0]: line.split()[1:3] for line in lines if line.startswith("BN")}
    assert first == {rule.code: [rule.name, rule.severity] for rule in all_rules()}


def test_the_table_is_there_as_markdown_too(bnaudit: Run) -> None:
    lines = bnaudit("explain", "--format", "markdown").out.splitlines()
    assert lines[0] == "| code | name | severity | meaning |"
    assert len(lines) == 2 + len(all_rules())


def test_all_codes_are_explained_one_after_another(bnaudit: Run) -> None:
    said = bnaudit("explain", "--all").out
    places = [said.index(f"{rule.code} {rule.name} ({rule.severity})") for rule in all_rules()]
    assert places == sorted(places)


def test_json_holds_every_text_and_threshold(bnaudit: Run) -> None:
    documents = json.loads(bnaudit("explain", "--all", "--format", "json").out)
    assert [document["code"] for document in documents] == [rule.code for rule in all_rules()]
    (one,) = json.loads(bnaudit("explain", "BN012", "--format", "json").out)
    assert one == next(document for document in documents if document["code"] == "BN012")
    rule = find_rule("BN012")
    assert (one["means"], one["remedy"]) == (rule.means, rule.remedy)
    (threshold,) = one["thresholds"]
    assert (threshold["name"], threshold["default"]) == ("multiple_of_eps", 1.0)


def test_markdown_of_one_code_is_part_of_the_page(bnaudit: Run) -> None:
    heading, _, body = bnaudit("explain", "BN012", "--format", "markdown").out.partition("\n\n")
    assert heading == "# BN012 dead-channels (info)"
    assert body.strip() in bnaudit("explain", "--all", "--format", "markdown").out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("BN999",), "BN999: no finding has that code or name"),
        (("dead-channel",), "did you mean dead-channels"),
        (("BN012", "--all"), "give a code or --all, not both"),
        (("BN012", "--format", "xml"), "xml"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    bnaudit: Run, args: tuple[str, ...], said: str
) -> None:
    ran = bnaudit("explain", *args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1


def test_explain_needs_neither_torch_nor_other_slow_imports() -> None:
    code = (
        "import sys\n"
        "from bnaudit.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        "slow = {'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.stderr.write(','.join(slow))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "explain", "BN012"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONIOENCODING": "utf-8"},
    )
    assert ran.stderr == ""
