"""`bnaudit inspect` on several files, and as a check that fails: what pre-commit makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from test_inspect_command import in_a_process
from workplace import Run, network


@pytest.fixture
def files(folder: Path) -> Path:
    """`sound.pt` without findings, `dead.pt` with lesser ones, `broken.pt` with an error."""
    state = network().state_dict()
    state["1.running_mean"] = torch.tensor([0.1, -0.2, 0.3, 0.2])
    state["1.running_var"] = torch.tensor([0.8, 1.2, 1.1, 0.9])
    state["1.num_batches_tracked"] = torch.tensor(5000)
    torch.save(state, "sound.pt")
    torch.save({**state, "1.running_var": torch.tensor([1.0, float("nan"), 1, 1])}, "broken.pt")
    torch.save({**state, "1.running_var": torch.tensor([1e-7, 1.2, 1.1, 0.9])}, "dead.pt")
    return folder


def severities(bnaudit: Run, name: str) -> set[str]:
    return {
        each["severity"] for each in json.loads(bnaudit("inspect", name, "--json").out)["findings"]
    }


def test_the_files_of_these_tests_have_findings_of_every_severity(
    bnaudit: Run, files: Path
) -> None:
    assert severities(bnaudit, "sound.pt") == set()
    assert "error" in severities(bnaudit, "broken.pt")
    assert severities(bnaudit, "dead.pt")
    assert "error" not in severities(bnaudit, "dead.pt")


def test_findings_do_not_fail_unless_asked_to(bnaudit: Run, files: Path) -> None:
    assert bnaudit("inspect", "broken.pt").code == 0
    assert bnaudit("inspect", "broken.pt", "--fail-on", "nothing").code == 0


@pytest.mark.parametrize(
    ("name", "fail_on", "code"),
    [
        ("broken.pt", "error", 1),
        ("broken.pt", "warning", 1),
        ("broken.pt", "info", 1),
        ("dead.pt", "error", 0),
        ("dead.pt", "info", 1),
        ("sound.pt", "info", 0),
    ],
)
def test_a_finding_of_that_severity_or_graver_fails(
    bnaudit: Run, files: Path, name: str, fail_on: str, code: int
) -> None:
    ran = bnaudit("inspect", name, "--fail-on", fail_on)
    assert ran.code == code
    assert "BN layers" in ran.out
    assert bnaudit("inspect", name, "--json", "--fail-on", fail_on).code == code


def test_the_policy_decides_what_is_found_at_all(bnaudit: Run, files: Path) -> None:
    codes = {
        each["code"]
        for each in json.loads(bnaudit("inspect", "broken.pt", "--json").out)["findings"]
        if each["severity"] == "error"
    }
    ignored = [word for code in codes for word in ("--ignore", code)]
    assert bnaudit("inspect", "broken.pt", "--fail-on", "error", *ignored).code == 0
    Path("bnaudit.toml").write_text(
        "[severity]\n" + "".join(f"{code} = 'warning'\n" for code in codes)
    )
    assert bnaudit("inspect", "broken.pt", "--fail-on", "error").code == 0
    assert bnaudit("inspect", "broken.pt", "--fail-on", "warning").code == 1


def test_each_of_several_files_has_a_line_and_those_that_fail_all_of_it(
    bnaudit: Run, files: Path
) -> None:
    ran = bnaudit("inspect", "sound.pt", "broken.pt", "dead.pt", "--fail-on", "error")
    assert ran.code == 1
    lines = [text for text in ran.out.splitlines() if text.partition(":")[0].endswith(".pt")]
    assert lines[0] == "sound.pt: 1 layer: no findings"
    assert lines[1].startswith("broken.pt: 1 layer: error BN001")
    assert lines[2].startswith("dead.pt: 1 layer: ")
    assert "BN012" in lines[2]
    assert "error" not in lines[2]
    assert re.findall(r"checkpoint  (\S+)", ran.out) == ["broken.pt"]
    assert ran.err.splitlines() == ["failed (--fail-on error): broken.pt (error BN001)"]
    assert bnaudit("inspect", "sound.pt", "dead.pt", "--fail-on", "error").code == 0


def test_several_files_are_shown_whole_where_that_is_asked_for(bnaudit: Run, files: Path) -> None:
    assert bnaudit("inspect", "sound.pt", "dead.pt").out.count("checkpoint  ") == 0
    ran = bnaudit("inspect", "sound.pt", "dead.pt", "--all")
    assert re.findall(r"checkpoint  (\S+)", ran.out) == ["sound.pt", "dead.pt"]


def test_a_file_that_is_given_twice_is_inspected_once(bnaudit: Run, files: Path) -> None:
    ran = bnaudit("inspect", "sound.pt", "sound.pt")
    assert ran.out.count("checkpoint  ") == 1
    assert "sound.pt: 1 layer" not in ran.out


def test_the_lines_of_several_files_are_not_broken(bnaudit: Run, files: Path) -> None:
    long = Path("a" * 60) / ("b" * 60)
    long.mkdir(parents=True)
    (long / "broken.pt").write_bytes(Path("broken.pt").read_bytes())
    ran = bnaudit("inspect", "hole.pt", long / "no.pt", long / "broken.pt", "--fail-on", "error")
    errors = [f"error: {name}: no such file" for name in ("hole.pt", str(long / "no.pt"))]
    shown = ran.err.splitlines()
    assert [text[: len(e)] for text, e in zip(shown, errors, strict=False)] == errors
    assert shown[2:] == [f"failed (--fail-on error): {long / 'broken.pt'} (error BN001)"]
    assert f"{long / 'broken.pt'}: 1 layer: " in ran.out


def test_files_without_batch_norm_or_statistics_say_so_in_their_line(
    bnaudit: Run, files: Path
) -> None:
    state = torch.load("sound.pt")
    torch.save({k: v for k, v in state.items() if k.startswith("0.")}, "plain.pt")
    torch.save({k: v for k, v in state.items() if "running_var" not in k}, "lost.pt")
    out = bnaudit("inspect", "plain.pt", "lost.pt").out.splitlines()
    assert out[0] == "plain.pt: no BatchNorm layers: no findings"
    assert out[1] == "lost.pt: 0 layers, 1 without statistics: error BN006"


@pytest.mark.parametrize("order", [("hole.pt", "broken.pt"), ("broken.pt", "hole.pt")])
def test_one_unreadable_file_does_not_keep_the_others_from_being_inspected(
    bnaudit: Run, files: Path, order: tuple[str, str]
) -> None:
    ran = bnaudit("inspect", *order, "net.py", "--fail-on", "error")
    assert ran.code == 2
    assert "broken.pt: 1 layer: " in ran.out
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "hole.pt: no such file" in errors[0]
    assert "net.py" in errors[1]


def test_several_files_are_an_array_and_one_is_an_object(bnaudit: Run, files: Path) -> None:
    both = json.loads(bnaudit("inspect", "sound.pt", "broken.pt", "--json").out)
    assert [each["file"]["path"] for each in both] == ["sound.pt", "broken.pt"]
    one = json.loads(bnaudit("inspect", "broken.pt", "--json").out)
    assert one == both[1]
    ran = bnaudit("inspect", "hole.pt", "broken.pt", "--json")
    assert ran.code == 2
    assert json.loads(ran.out) == both[1:]
    ran = bnaudit("inspect", "hole.pt", "net.py", "--json")
    assert (ran.code, json.loads(ran.out)) == (2, [])


def test_each_of_several_files_gets_a_folder_of_its_name(bnaudit: Run, files: Path) -> None:
    Path("other").mkdir()
    Path("other/SOUND.pt").write_bytes(Path("sound.pt").read_bytes())
    ran = bnaudit("inspect", "sound.pt", "other/SOUND.pt", "dead.pt", "-o", "out")
    assert ran.code == 0
    found = {
        path.parent.name: json.loads(path.read_text())["file"]["path"]
        for path in Path("out").rglob("inspection.json")
    }
    assert found == {
        "sound.pt": "sound.pt",
        "SOUND.pt-2": "other/SOUND.pt",
        "dead.pt": "dead.pt",
    }
    assert ran.out.splitlines()[-1] == "written to out: a folder for each file"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("sound.pt", "--fail-on", "eror"),
            "--fail-on eror: no such severity; did you mean 'error'?",
        ),
        (("sound.pt", "dead.pt", "--select", "BN9"), "no finding has that code or name"),
        (("sound.pt", "dead.pt", "-o", "net.py"), "--output net.py"),
    ],
    ids=" ".join,
)
def test_a_wrong_request_is_answered_once_however_many_files_there_are(
    bnaudit: Run, files: Path, args: tuple[str, ...], said: str
) -> None:
    ran = bnaudit("inspect", *args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_several_files_need_nothing_heavy_either(files: Path) -> None:
    out, (code, heavy) = in_a_process("inspect", "sound.pt", "broken.pt", "--fail-on", "error")
    assert (code, heavy) == (1, [])
    assert out.count("checkpoint  ") == 1
