"""A gate in the terminal: the verdict first, then what fails, whole at any width."""

from __future__ import annotations

import io
from dataclasses import replace

import gates
import pytest
from rich.console import Console

from bnaudit.report.gate import print_gate
from bnaudit.results import Gate


def printed(gate: Gate, width: int = 80, *, all_layers: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    print_gate(gate, console, all_layers=all_layers)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        (gates.failing(), "FAIL  2 checks fail"),
        (gates.inconclusive(), "INCONCLUSIVE  1 check is inconclusive"),
        (gates.passing(), "PASS  Nothing fails."),
    ],
)
def test_the_verdict_is_the_first_line_and_needs_no_colour(gate: Gate, verdict: str) -> None:
    assert printed(gate).startswith(verdict)


def test_it_says_what_was_judged_and_against_what() -> None:
    said = words(printed(gates.failing()))
    assert "checkpoint ckpt.pt (sha256 cdcdcdcdcdcd)" in said
    assert "npz:val.npz: 5,000 RGB images of 32×32: 2,000 samples, seed 0" in said
    assert "baseline main.json: main.pt (sha256 abababababab); the same samples" in said
    assert "note No labels." in said
    assert "note Other versions of torch." in said
    assert "baseline" not in words(printed(gates.passing()))


def test_an_audit_that_was_read_is_named_beside_its_checkpoint() -> None:
    read = replace(gates.passing(), subject=replace(gates.AFTER, source="out/audit.json"))
    assert "measured in out/audit.json" in words(printed(read))
    assert "measured in" not in words(printed(gates.passing()))


def test_a_base_checkpoint_is_named_once() -> None:
    base = replace(gates.BEFORE, source="main.pt")
    gate = replace(gates.failing(), changes=replace(gates.changes(), before=base))
    assert "baseline main.pt (sha256 abababababab); the same samples" in words(printed(gate))


def test_what_fails_comes_before_what_could_not_be_told_and_that_before_the_rest() -> None:
    said = printed(gates.failing())
    order = [
        "Failing: 2",
        "BN101",
        "layer_esm",
        "Inconclusive: 1",
        "min_accuracy",
        "passed ",
    ]
    order += ["waived: BN201", "unused setting"]
    assert [said.index(word) for word in order] == sorted(said.index(word) for word in order)


def test_a_failing_check_has_its_sentence_its_layers_its_remedy_and_its_command() -> None:
    said = words(printed(gates.failing()))
    check = gates.FAILING
    assert check.sentence in said
    assert f"→ {check.remedy}" in said
    assert f" {check.command} " in printed(gates.failing()).replace("\n", " ")
    assert "layer1.2.bn1" in said
    assert "bnaudit explain CODE" in said


def test_a_sound_gate_says_nothing_about_codes_or_remedies() -> None:
    said = printed(gates.passing())
    assert "explain" not in said
    assert "→" not in said
    assert "Failing" not in said


def test_a_waived_finding_says_why() -> None:
    said = printed(gates.failing())
    assert "waived: BN201 estimation-shift (bn): ignored by gate.ignore BN201" in said
    assert "waived: BN004 estimation-shift: it stands in the baseline already" in said
    assert "1 finding that does not count: BN106" in said


def test_layers_that_are_only_on_one_side_are_listed() -> None:
    said = printed(gates.failing())
    assert "1 layer added: head.bn" in said
    assert "1 layer removed: neck.bn" in said
    first, *others = gates.changes().layers
    renamed = replace(gates.changes(), layers=(replace(first, before_name="old"), *others))
    assert "1 layer renamed: old → bn" in printed(replace(gates.failing(), changes=renamed))


def test_a_command_is_given_once() -> None:
    again = replace(gates.FAILING, name="BN201")
    said = printed(replace(gates.failing(), checks=(gates.FAILING, again)))
    assert said.count("bnaudit recalibrate") == 1
    assert "(the command of BN101)" in said


def test_all_layers_are_named_and_tabled_where_asked_for() -> None:
    names = tuple(f"block{i}.bn" for i in range(9))
    check = replace(gates.FAILING, layers=names)
    gate = replace(gates.failing(), checks=(check,))
    short, long = words(printed(gate)), words(printed(gate, all_layers=True))
    assert "9 layers: block0.bn, block1.bn, block2.bn, block3.bn and 5 more" in short
    assert "block8.bn" not in short
    assert ", ".join(names) in long
    assert "layer2.0.bn2 .080" not in short
    assert "layer2.0.bn2 .080" in long


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("all_layers", [False, True])
def test_no_line_is_longer_than_the_terminal_but_a_command(width: int, all_layers: bool) -> None:
    for gate in (gates.failing(), gates.inconclusive(), gates.passing(), *gates.measured()):
        out = printed(gate, width, all_layers=all_layers)
        lines = [line for line in out.splitlines() if not line.startswith("    bnaudit")]
        assert max(map(len, lines)) <= width
        assert "…" not in out


@pytest.mark.parametrize("all_layers", [False, True])
def test_names_from_files_reach_the_terminal_as_text(all_layers: bool) -> None:
    out = printed(gates.nasty(), 400, all_layers=all_layers)
    assert "[bold]" in out
    assert r"\x1b[31m" in out
    assert r"\ud800" in out
    assert all(char == "\n" or char.isprintable() for char in out)
    out.encode("utf-8")


def test_a_real_model_passes_against_itself_and_fails_with_a_layer_broken() -> None:
    sound, broken = map(printed, gates.measured())
    assert sound.startswith("PASS")
    assert "Nothing changed beyond noise" in words(sound)
    assert broken.startswith("FAIL")
    assert "FAIL BN101" in broken
    assert "FAIL layer_esm" in broken
    assert "grew in 1 of 2 layers, layer 4" in words(broken)
