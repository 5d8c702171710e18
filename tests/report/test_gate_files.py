"""The forms of a gate: which there are, and the files that are written of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import gates
import pytest

from bnaudit.errors import InputError
from bnaudit.report.gate_files import (
    FORMATS,
    ReportFile,
    check_format,
    gate_results,
    parse_reports,
    rendered,
    write_gate,
    write_reports,
)
from bnaudit.report.junit import junit
from bnaudit.report.markdown import markdown
from bnaudit.results import Gate


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_form_is_of_the_same_gate() -> None:
    gate = gates.failing()
    assert set(FORMATS) == {"json", "junit", "markdown", "github"}
    assert Gate.from_json(rendered(gate, "json")) == gate
    assert rendered(gate, "junit") == junit(gate)
    assert rendered(gate, "markdown") == markdown(gate)
    assert rendered(gate, "github").startswith("::error ")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_form_can_be_written_whatever_the_names(kind: str) -> None:
    write_reports(gates.nasty(), parse_reports([f"{kind}=out"]))
    assert Path("out").read_text(encoding="utf-8") == rendered(gates.nasty(), kind)


def test_several_reports_are_written_at_once_and_folders_made() -> None:
    reports = parse_reports(["junit=out/ci/gate.xml", "markdown = summary.md", "json=a=b.json"])
    assert reports == (
        ReportFile("junit", Path("out/ci/gate.xml")),
        ReportFile("markdown", Path("summary.md")),
        ReportFile("json", Path("a=b.json")),
    )
    assert not Path("out").exists()
    written = write_reports(gates.failing(), reports)
    assert written == [Path("out/ci/gate.xml"), Path("summary.md"), Path("a=b.json")]
    assert Path("out/ci/gate.xml").read_text(encoding="utf-8") == junit(gates.failing())
    assert json.loads(Path("a=b.json").read_text())["outcome"] == "fail"


def test_an_earlier_report_is_replaced() -> None:
    Path("gate.xml").write_text("old")
    write_reports(gates.passing(), parse_reports(["junit=gate.xml"]))
    assert Path("gate.xml").read_text(encoding="utf-8") == junit(gates.passing())
    assert list(Path().iterdir()) == [Path("gate.xml")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["junti=a.xml"], "--report junti: no such form; did you mean 'junit'?"),
        (["terminal=a"], "--report terminal: no such form"),
        (["=a.xml"], "--report : no such form"),
        (["junit"], "--report junit: write KIND=PATH, such as junit=gate.xml"),
        (["junit="], "--report junit=: write KIND=PATH"),
        (["gate.xml"], "--report gate.xml: write KIND=PATH"),
        (["junit=a", "json=a"], "--report json=a: a is given twice"),
        (["junit=a", "junit=./b/../a"], "a is given twice"),
        (["junit=folder"], "--report junit=folder: folder is a folder; give a file"),
        (["junit=file/a.xml"], "--report junit=file/a.xml"),
        (["junit=read.json"], "read.json is read by this run; give another path"),
    ],
    ids=str,
)
def test_a_wrong_request_is_told_in_one_line_before_anything_is_written(
    given: list[str], said: str
) -> None:
    Path("folder").mkdir()
    Path("file").write_text("x")
    Path("read.json").write_text("{}")
    before = sorted(path.name for path in Path().iterdir())
    with pytest.raises(InputError) as raised:
        parse_reports(given, [Path("read.json")])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in Path().iterdir()) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("json=out/gate.json", "out/gate.json is written for --output"),
        ("junit=out/../out/audit.json", "is written for --output"),
        ("markdown=link/layers.csv", "is written for --output"),
        ("github=out/shift_by_depth.svg", "is written for --output"),
        ("json=main.json", "main.json is written for --write-baseline"),
    ],
)
def test_a_report_does_not_replace_what_else_the_run_writes(given: str, said: str) -> None:
    Path("out").mkdir()
    Path("link").symlink_to("out")
    outputs = dict.fromkeys(gate_results(Path("out")), "--output")
    outputs[Path("main.json")] = "--write-baseline"
    with pytest.raises(InputError, match=r"give another path$") as raised:
        parse_reports([given], [], outputs)
    assert said in str(raised.value)
    assert parse_reports(["junit=out/gate.xml"], [], outputs)[0].path == Path("out/gate.xml")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_cannot_be_written_is_told_before_the_work() -> None:
    Path("locked").mkdir()
    Path("locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match=r"--report junit=locked/a\.xml: .*not writable"):
        parse_reports(["junit=locked/a.xml"])


def test_what_fails_while_writing_leaves_the_earlier_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gate.xml").write_text("old")
    (report,) = parse_reports(["junit=gate.xml"])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"junit=gate\.xml: cannot be written: No space left"):
        write_reports(gates.failing(), [report])
    assert Path("gate.xml").read_bytes() == b"old"
    assert list(Path().iterdir()) == [Path("gate.xml")]


def test_stdout_takes_every_form_and_the_terminal_s() -> None:
    for kind in (*FORMATS, "terminal"):
        check_format(kind)
    with pytest.raises(InputError, match="--format xml: no such form"):
        check_format("xml")
    with pytest.raises(InputError, match="did you mean 'terminal'"):
        check_format("terminl")


def test_the_document_goes_into_a_folder_of_results() -> None:
    assert write_gate(gates.failing(), Path("new/out")) == Path("new/out/gate.json")
    assert Gate.from_json(Path("new/out/gate.json").read_text()) == gates.failing()
