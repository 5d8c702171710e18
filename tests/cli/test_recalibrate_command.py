"""`bnaudit recalibrate` and `restore` as commands: options, streams, exit codes, help.

What recalibrates is a stand-in here: it records what it was asked for and gives a made-up result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from workplace import Run, contents

from bnaudit.cli.main import app
from bnaudit.config import Settings
from bnaudit.results import DataInfo, Decision, ModelInfo, Recalibrated, RecalibratedLayer

ACCEPTED = Decision("gain", accept=True, sentence="Accepted: a gain.")
REFUSED = Decision("loss", accept=False, sentence="Not accepted: a loss.")
FORCED = Decision("loss", accept=False, sentence="Not accepted. Used all the same.", forced=True)
NOTHING = Decision("nothing-to-change", accept=False, sentence="Nothing to change.")
UNVERIFIED = Decision("unverified", accept=True, sentence="Not verified.")


def result(decision: Decision) -> Recalibrated:
    data = DataInfo("npz:data.npz", 40, 40, 32, 0, 8, "0")
    layer = RecalibratedLayer("1", "BatchNorm2d", 4, changed=True, order=0, calibration_before=0.3)
    return Recalibrated(
        versions={},
        device="cpu",
        dtype="float32",
        model=ModelInfo("net.py:model", 100, {"BatchNorm2d": 1}, "good.pt"),
        data=data,
        asked="exact",
        method="exact",
        layers=(layer,),
        decision=decision,
        residual_before=0.3,
        residual=1e-7,
    )


@dataclass(frozen=True)
class Outcome:
    result: Recalibrated
    path: Path | None
    sidecar: Path | None
    in_place: bool = True
    notes: tuple[str, ...] = ()


@dataclass
class StandIn:
    """In place of `recalibrate_file`: what it was called with, and what it gives."""

    decision: Decision = ACCEPTED
    in_place: bool = True
    notes: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    target: Path | None = None
    flags: dict[str, bool] = field(default_factory=dict)
    called: bool = False

    def __call__(
        self,
        settings: Settings,
        target: Path,
        *,
        progress: Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]],
        say: Callable[[str], None],
        ranks: object,
        **flags: bool,
    ) -> Outcome:
        self.settings, self.target, self.flags, self.called = settings, target, flags, True
        say("holds 1.2 MB at once")
        with progress("recalibrating", 40) as advance:
            advance(40)
        writes = self.decision.use and not flags["dry_run"]
        sidecar = target.with_name(f"{target.name}.bnaudit.json")
        return Outcome(
            result(self.decision),
            target if writes else None,
            sidecar if writes else None,
            self.in_place,
            self.notes,
        )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    name = "bnaudit.verbs.recalibrate_file"
    module: Any = ModuleType(name)
    module.recalibrate_file = stand_in = StandIn()
    monkeypatch.setitem(sys.modules, name, module)
    return stand_in


RECALIBRATE = ("recalibrate", "good.pt", "--model", "net.py:model", "--data", "npz:data.npz")


# Options


def test_every_option_reaches_the_settings(folder: Path, bnaudit: Run, stand_in: StandIn) -> None:
    options: list[tuple[str, str, object]] = [
        ("--model-arg", "width=4", ("model_arg", {"width": 4})),
        ("--checkpoint-key", "ema", ("checkpoint_key", "ema")),
        ("--data-arg", "split=val", ("data_arg", {"split": "val"})),
        ("--transform", "imagenet", ("transform", "imagenet")),
        ("--samples", "300", ("samples", 300)),
        ("--method", "ema", ("method", "ema")),
        ("--momentum", "0.2", ("momentum", 0.2)),
        ("--prior", "64", ("prior", 64.0)),
        ("--above", "0.1", ("above", 0.1)),
        ("--max-memory", "8GB", ("max_memory", "8GB")),
        ("--verify", "npz:held.npz", ("verify", "npz:held.npz")),
        ("--verify-arg", "split=test", ("verify_arg", {"split": "test"})),
        ("--verify-samples", "all", ("verify_samples", "all")),
        ("--max-loss", "1.5", ("max_loss", 1.5)),
        ("--batch-size", "16", ("batch_size", 16)),
        ("--device", "cpu", ("device", "cpu")),
        ("--dtype", "bf16", ("dtype", "bf16")),
        ("--workers", "2", ("workers", 2)),
        ("--seed", "7", ("seed", 7)),
        ("--forward", "net.py:fails", ("forward", "net.py:fails")),
        ("--task", "other", ("task", "other")),
    ]
    switches = ("allow_mismatch", "trust_pickle", "skip_bad", "channels_last", "include_frozen")
    given = [text for name, value, _ in options for text in (name, value)]
    given += [f"--{name.replace('_', '-')}" for name in switches]
    given += ["--layers", "layer3.*", "--layers", "/bn[12]$/"]
    ran = bnaudit(*RECALIBRATE, *given)
    assert ran.code == 0, ran.err
    said = stand_in.settings.model_dump()
    for _, _, expected in options:
        assert isinstance(expected, tuple)
        assert said[expected[0]] == expected[1]
    assert all(said[name] is True for name in switches)
    assert said["layers"] == ["layer3.*", "/bn[12]$/"]
    assert (said["checkpoint"], said["model"]) == (Path("good.pt"), "net.py:model")


def test_the_command_has_the_options_of_measure(bnaudit: Run) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    of_measure = {parameter.name: parameter for parameter in commands["measure"].params}
    shared = {
        name: parameter
        for parameter in commands["recalibrate"].params
        if (name := parameter.name) in of_measure
    }
    assert len(shared) >= 20
    for name, parameter in shared.items():
        if name not in ("checkpoint", "samples", "output", "json"):
            assert parameter.opts == of_measure[name].opts
            assert parameter.help == of_measure[name].help
    of_settings = {p.name for command in commands.values() for p in command.params}
    only_in_a_file = {"severity"}
    under_another_name = {"thresholds", "gate"}  # the options of the gate stand in a table
    assert set(Settings.model_fields) - only_in_a_file - under_another_name <= of_settings


def test_what_is_not_given_keeps_its_default(folder: Path, bnaudit: Run, stand_in: StandIn) -> None:
    assert bnaudit(*RECALIBRATE).code == 0
    expected = Settings(checkpoint=Path("good.pt"), model="net.py:model", data="npz:data.npz")
    assert stand_in.settings == expected
    assert stand_in.flags == {"dry_run": False, "force": False, "overwrite": False}


def test_the_file_is_named_after_the_checkpoint(
    folder: Path, bnaudit: Run, stand_in: StandIn
) -> None:
    bnaudit(*RECALIBRATE)
    assert stand_in.target == Path("good.recalibrated.pt")
    bnaudit(*RECALIBRATE, "-o", "other/x.pt", "--force", "--overwrite", "--dry-run")
    assert stand_in.target == Path("other/x.pt")
    assert stand_in.flags == {"dry_run": True, "force": True, "overwrite": True}


def test_a_file_of_settings_serves_both_verbs(
    folder: Path, bnaudit: Run, stand_in: StandIn
) -> None:
    (folder / "bnaudit.toml").write_text(
        'model = "net.py:model"\ndata = "npz:data.npz"\noutput = "results"\nskip_bad = true\n'
        'include-frozen = true\nlayers = "layer3.*"\nverify = "npz:held.npz"\n'
        'verify_arg = {split = "a", other = 1}\nprior = 64\n'
    )
    ran = bnaudit("recalibrate", "good.pt", "--no-skip-bad", "--verify-arg", "split=b")
    assert ran.code == 0, ran.err
    said = stand_in.settings
    assert (said.skip_bad, said.include_frozen) == (False, True)
    assert (said.layers, said.prior) == (["layer3.*"], 64)
    assert said.verify == "npz:held.npz"
    assert said.verify_arg == {"split": "b", "other": 1}
    assert stand_in.target == Path("good.recalibrated.pt")  # `output` is the folder of measure


@pytest.mark.parametrize(
    ("args", "kept"),
    [(("--verify-split", "0.5"), (None, 0.5)), (("--verify", "npz:x.npz"), ("npz:x.npz", None))],
)
def test_the_command_line_says_which_verification_it_is(
    folder: Path, bnaudit: Run, stand_in: StandIn, args: tuple[str, str], kept: tuple[Any, Any]
) -> None:
    (folder / "bnaudit.toml").write_text(
        "verify_split = 0.3\n" if args[0] == "--verify" else 'verify = "npz:held.npz"\n'
    )
    ran = bnaudit(*RECALIBRATE, *args)
    assert ran.code == 0, ran.err
    assert (stand_in.settings.verify, stand_in.settings.verify_split) == kept


WRONG: list[tuple[list[str], tuple[str, ...]]] = [
    (["--method", "fast"], ("--method", "'exact', 'sequential', 'precise' or 'ema'", "'fast'")),
    (["--momentum", "2", "--method", "ema"], ("--momentum", "less than or equal to 1")),
    (["--momentum", "0.1"], ("--momentum 0.1", "--method ema")),
    (["--momentum", "x"], ("--momentum", "recalibrate --help")),
    (["--prior", "-1"], ("--prior", "greater than or equal to 0")),
    (["--prior", "inf"], ("--prior", "finite")),
    (["--above", "nan"], ("--above",)),
    (["--verify-split", "1"], ("--verify-split", "less than 1")),
    (["--verify-split", "0"], ("--verify-split", "greater than 0")),
    (["--verify-samples", "few"], ("--verify-samples", "a positive number, or all", "'few'")),
    (["--verify-arg", "split"], ("--verify-arg split", "key=value")),
    (["--verify-arg", "split=test"], ("--verify-arg split=test", "is for --verify")),
    (["--max-loss", "-0.5"], ("--max-loss", "greater than or equal to 0")),
    (["--verify", "npz:a.npz", "--verify-split", "0.5"], ("--verify npz:a.npz", "exclude")),
    (["--samples", "0"], ("--samples", "a positive number, or all")),
    (["--train-batch-size", "4"], ("--train-batch-size", "recalibrate --help")),
    (["--config", "no.toml"], ("--config no.toml", "no such file")),
]


@pytest.mark.parametrize(("args", "says"), WRONG, ids=lambda value: " ".join(value))
def test_a_wrong_value_is_told_in_one_line(
    folder: Path, bnaudit: Run, stand_in: StandIn, args: list[str], says: tuple[str, ...]
) -> None:
    before = contents(folder)
    ran = bnaudit(*RECALIBRATE, *args)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("error: ")
    assert not [words for words in says if words not in ran.err], ran.err
    assert not stand_in.called
    assert contents(folder) == before


def test_without_a_checkpoint_there_is_nothing_to_recalibrate(
    folder: Path, bnaudit: Run, stand_in: StandIn
) -> None:
    ran = bnaudit("recalibrate", "--model", "net.py:model", "--data", "npz:data.npz")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: no checkpoint: name the file")


@pytest.mark.parametrize("value", ["0", "some", "-3"])
def test_measure_tells_a_wrong_attribute(folder: Path, bnaudit: Run, value: str) -> None:
    ran = bnaudit("measure", "good.pt", "--attribute", value)
    assert (ran.code, ran.out) == (2, "")
    assert "--attribute: give a positive number, or all or none" in ran.err


# Outcomes


@pytest.mark.parametrize(
    ("decision", "args", "code", "says"),
    [
        (ACCEPTED, (), 0, "written to good.recalibrated.pt (only the statistics differ)"),
        (UNVERIFIED, (), 0, "written to good.recalibrated.pt"),
        (FORCED, ("--force",), 0, "written to good.recalibrated.pt"),
        (ACCEPTED, ("--dry-run",), 0, "nothing written (dry run); it would go to good.recal"),
        (REFUSED, (), 1, "nothing written; --force overrides"),
        (REFUSED, ("--dry-run",), 1, "nothing written; --force overrides"),
        (NOTHING, (), 0, "nothing written: no layer was recalibrated"),
    ],
)
def test_the_exit_code_says_what_became_of_it(
    folder: Path,
    bnaudit: Run,
    stand_in: StandIn,
    decision: Decision,
    args: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    stand_in.decision = decision
    ran = bnaudit(*RECALIBRATE, *args)
    assert ran.code == code, ran.err
    assert decision.sentence in ran.out
    assert says in ran.out
    assert ("bnaudit restore" in ran.out) == ("written to" in ran.out)
    assert ran.err == "holds 1.2 MB at once\n"


def test_the_file_its_sidecar_and_how_to_undo_it_come_last(
    folder: Path, bnaudit: Run, stand_in: StandIn
) -> None:
    stand_in.in_place, stand_in.notes = False, ("the archive is compressed: it was saved anew",)
    ran = bnaudit(*RECALIBRATE, "-o", "new one.pt")
    assert ran.out.splitlines()[-4:] == [
        "written to new one.pt (saved anew)",
        "the archive is compressed: it was saved anew",
        "provenance and the old statistics: new one.pt.bnaudit.json",
        "undo: bnaudit restore 'new one.pt'",
    ]
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("decision", [ACCEPTED, REFUSED, NOTHING])
def test_json_is_the_document_on_stdout_and_nothing_else(
    folder: Path, bnaudit: Run, stand_in: StandIn, decision: Decision
) -> None:
    stand_in.decision = decision
    ran = bnaudit(*RECALIBRATE, "--json")
    document = json.loads(ran.out)
    written = document.pop("written")
    assert document == json.loads(result(decision).to_json())
    assert (written is not None) == decision.use
    assert ran.code == (1 if decision is REFUSED else 0)


def test_progress_goes_to_stderr(
    folder: Path, bnaudit: Run, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnaudit.cli.screen.PLAIN_EVERY", 0.0)
    ran = bnaudit(*RECALIBRATE, "--json")
    assert ran.err.splitlines()[0] == "holds 1.2 MB at once"
    assert ran.err.splitlines()[1].startswith("recalibrating: 40 of 40 samples")


def test_ctrl_c_ends_with_130(
    folder: Path, bnaudit: Run, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        sys.modules["bnaudit.verbs.recalibrate_file"], "recalibrate_file", interrupted
    )
    ran = bnaudit(*RECALIBRATE)
    assert (ran.code, ran.out, ran.err) == (130, "", "interrupted\n")


# Help


def test_help_teaches_by_examples(bnaudit: Run) -> None:
    said = " ".join(bnaudit("recalibrate", "--help").out.split())
    assert said.count("bnaudit recalibrate") >= 6
    for words in ("--verify-split 0.5", "--layers 'layer3.*'", "bnaudit restore", "--json | jq"):
        assert words in said.partition("Examples:")[2]
    for panel in ("Model and checkpoint", "Data", "Method", "Verification", "How to run", "Output"):
        assert f"─ {panel} ─" in said


# restore


def test_restore_tells_that_there_is_no_sidecar(folder: Path, bnaudit: Run) -> None:
    before = contents(folder)
    ran = bnaudit("restore", "good.pt")
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert "good.pt" in ran.err
    assert contents(folder) == before


@dataclass(frozen=True)
class Restored:
    target: Path
    identical: bool
    source: str = "ckpt.pth"
    tensors: int = 18
    notes: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (
            Restored(Path("a.pt"), identical=True),
            ["written to a.pt: byte for byte ckpt.pth as it was"],
        ),
        (
            Restored(Path("a.pt"), identical=False, notes=("it was saved anew",)),
            ["written to a.pt: 18 tensors have their old values", "it was saved anew"],
        ),
    ],
)
def test_restore_tells_how_much_is_as_it_was(
    folder: Path, bnaudit: Run, monkeypatch: pytest.MonkeyPatch, report: Restored, says: list[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def restored(path: Path, target: Path | None, **options: bool) -> Restored:
        asked.append((path, target, options))
        return report

    monkeypatch.setattr("bnaudit.verbs.restore.restore", restored)
    ran = bnaudit("restore", "good.pt", "-o", "a.pt", "--overwrite")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == says
    options = {"overwrite": True, "trust_pickle": False}
    assert asked == [(Path("good.pt"), Path("a.pt"), options)]
