"""`bnaudit domains` on the command line: what is printed, written, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from domain_models import SAMPLES, Answer, accuracy_and_loss, bright, digits, digits_net, hazy
from PIL import Image

from bnaudit.checkpoints.bank import read_bank
from bnaudit.results.domains import Domains

Command = Callable[..., Answer]

DIGITS = f"npz:{SAMPLES / 'digits.npz'}"
CONFIG = SAMPLES / "bnaudit.toml"


def asked(*more: str | Path, names: tuple[str, ...] = ("plain", "bright", "hazy")) -> list[object]:
    """The three views of the digits, of which the checkpoint knows the first."""
    views = {"bright": "brighter", "hazy": "low_contrast"}
    words: list[object] = ["domains", SAMPLES / "healthy.pt", "--config", CONFIG]
    for name in names:
        words += ["--domain", f"{name}={DIGITS}"]
        if name in views:
            words += ["--domain-transform", f"{name}={SAMPLES / 'digits.py'}:{views[name]}"]
    return [*words, *more]


def test_the_digits_are_compared_and_everything_is_written(
    command: Command, tmp_path: Path
) -> None:
    bank, folder = tmp_path / "bank.safetensors", tmp_path / "by-domain"
    fewer = ("--samples", "160", "--verify-samples", "200")
    ran = command(*asked("--bank", bank, "--write-checkpoints", folder, "-o", "out", *fewer))
    assert ran.code == 0, ran.err
    assert ran.out.startswith("Statistics of their own pay")
    assert "BN311" in ran.out
    # What has to be copied in one piece is not broken.
    printed = [line for line in ran.out.splitlines() if not line.startswith("    bnaudit domains")]
    assert max(len(line) for line in printed if not line.startswith("written")) <= 80
    assert {path.name for path in Path("out").iterdir()} == {
        *("domains.json", "domains.csv", "domains_layers.csv"),
        *("domains.png", "domains.svg", "domains_by_layer.png", "domains_by_layer.svg"),
    }
    result = Domains.from_json(Path("out/domains.json").read_text())
    assert result.names == ("plain", "bright", "hazy")
    assert read_bank(bank).samples["pooled"] == 3 * result.domains[0].calibration.samples
    _check_checkpoints(folder)


def _check_checkpoints(folder: Path) -> None:
    """One for each domain, in which only the statistics differ, and which helps there."""
    names = ("plain", "bright", "hazy", "pooled")
    written = {path.name for path in folder.iterdir() if path.suffix == ".pt"}
    assert written == {f"healthy.{name}.pt" for name in names}
    before = digits_net().state_dict()
    images, labels = digits("verify")
    for name, view in (("bright", bright), ("hazy", hazy)):
        model = digits_net()
        model.load_state_dict(torch.load(folder / f"healthy.{name}.pt", weights_only=True))
        changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
        assert changed == {n for n in before if "running" in n}
        worse = accuracy_and_loss(digits_net(), view(images), labels)[0]
        assert accuracy_and_loss(model, view(images), labels)[0] > worse + 0.15


def test_what_a_copy_lacks_or_has_otherwise_is_told(command: Command, tmp_path: Path) -> None:
    whole = torch.load(SAMPLES / "healthy.pt", weights_only=True)
    gone = [k for k in whole if k.startswith("bn.")] + ["blocks.0.bn1.running_var"]
    torch.save({k: v for k, v in whole.items() if k not in gone}, tmp_path / "part.pt")
    words = asked("--write-checkpoints", "copies", "--allow-mismatch", names=("plain", "hazy"))
    words[1] = tmp_path / "part.pt"
    ran = command(*words, "-o", "out", "--no-plots", "--samples", "80", "--verify-samples", "80")
    assert ran.code == 0, ran.err
    notes = Domains.from_json(Path("out/domains.json").read_text()).notes
    told = [note for note in notes if note.startswith("--write-checkpoints: ")]
    assert any("not in the copy either: bn" in note for note in told)
    assert any("saved anew, not patched" in note for note in told)
    copy = torch.load("copies/part.hazy.pt", weights_only=True)
    assert "blocks.0.bn1.running_var" in copy
    assert "bn.running_var" not in copy


def test_the_command_of_a_finding_runs_and_nothing_is_replaced_unasked(
    command: Command, tmp_path: Path
) -> None:
    ran = command(
        *asked("--json", "--samples", "120", "--verify-samples", "120", names=("plain", "hazy"))
    )
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["schema"] == 1
    assert [path for path in tmp_path.iterdir() if path.name != "__pycache__"] == []
    words = next(f["command"] for f in document["findings"] if f["code"] == "BN311").split()
    assert words[:2] == ["bnaudit", "domains"]
    assert words[-2:] == ["--bank", "domains.safetensors"]
    first = command(*words[1:], "--no-plots")
    assert first.code == 0, first.err
    assert read_bank(Path("domains.safetensors")).domains == ("plain", "hazy", "pooled")
    before = Path("domains.safetensors").read_bytes()
    again = command(*words[1:], "--no-plots")
    assert again.code == 2
    assert "exists already; allow --overwrite" in again.err
    assert Path("domains.safetensors").read_bytes() == before


def test_a_configuration_can_name_the_domains(command: Command, tmp_path: Path) -> None:
    for name in ("digits.py", "digits.npz", "healthy.pt"):
        shutil.copy(SAMPLES / name, tmp_path / name)
    place = tmp_path / "deep"
    place.mkdir()
    config = place / "bnaudit.toml"
    config.write_text(
        'checkpoint = "../healthy.pt"\nmodel = "../digits.py:model"\nsamples = 80\n'
        'verify_samples = 80\nplots = false\ntransform = "../digits.py:transform"\n'
        '[domain]\nday = "npz:../digits.npz"\nnight = "npz:../digits.npz"\n'
        '[domain_transform]\nnight = "../digits.py:low_contrast"\n'
        '[domain_arg.day]\nsplit = "test"\n[domain_arg.night]\nsplit = "verify"\n'
    )
    ran = command("domains", "--config", config, "--json")
    assert ran.code == 0, ran.err
    result = Domains.from_json(ran.out)
    sizes = [one.calibration.available for one in result.domains]
    assert sizes == [497, 400]
    assert result.domains[1].calibration.transform.endswith("digits.py:low_contrast")
    again = command("domains", "--config", config, "--json", "--domain-arg", "day.split=train")
    assert Domains.from_json(again.out).domains[0].calibration.available == 900


def _folders(root: Path) -> None:
    """Images by day and by night, in folders of classes that differ."""
    for where in ("day/cat", "day/dog", "night/dog", "empty"):
        (root / where).mkdir(parents=True)
    for number in range(8):
        for where in ("day/cat", "day/dog", "night/dog"):
            Image.new("L", (8, 8), 20 * number).save(root / where / f"{number}.png")


WRONG: tuple[tuple[list[object], str], ...] = (
    (asked(names=()), "no domain is named: give two or more"),
    (asked(names=("plain",)), "one domain, plain: there is nothing to compare it with"),
    (asked("--domain", "plain=npz:x.npz"), "plain is named twice"),
    (asked("--domain", "night"), "--domain night: write NAME=SPEC"),
    (asked("--domain", "checkpoint=npz:x.npz"), "domain checkpoint: is what other statistics"),
    (asked("--domain", "../up=npz:x.npz"), "domain '../up': a name has letters"),
    (asked("--domain", "night=npz:none.npz"), "--domain npz:none.npz"),
    (asked("--domain", "night=imagefolder:empty"), "night"),
    (asked("--domain-transform", "hasy=x.py:f"), "no domain of that name; did you mean 'hazy'?"),
    (asked("--domain-arg", "split=test"), "write NAME.KEY=VALUE"),
    (asked("--domain-arg", "fog.split=test"), "--domain-arg fog: there is no domain"),
    (asked("--domain-arg", "hazy.splt=test"), "splt"),
    (asked("--bank", "bank.pt"), "a bank is a .safetensors file"),
    (asked("--bank", "no/bank.safetensors"), "its folder no does not exist"),
    (asked("--write-checkpoints", "a-file"), "a-file is a file; give a folder"),
    (asked("--verify-split", "1"), "--verify-split"),
    (asked("--samples", "0"), "--samples"),
    (
        [
            *("domains", SAMPLES / "healthy.pt", "--model", f"{SAMPLES / 'digits.py'}:model"),
            *("--domain", "day=imagefolder:day", "--domain", "night=imagefolder:night"),
        ],
        "domain night: its classes are dog, those of domain day cat, dog",
    ),
)


def test_what_is_wrong_is_told_in_one_line_before_anything_is_written(
    command: Command, tmp_path: Path
) -> None:
    _folders(tmp_path)
    (tmp_path / "a-file").write_text("")
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    for args, says in WRONG:
        ran = command(*args)
        assert ran.code == 2, (says, ran.err)
        assert says in ran.err, ran.err
        assert ran.err.strip().count("error:") == 1, says
        assert ran.out == "", says
    after = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert {path for path in after - before if "__pycache__" not in path.parts} == set()


def test_help_and_explanations_read_well(command: Command) -> None:
    shown = command("domains", "--help")
    assert shown.code == 0
    assert "--domain-transform" in shown.out
    for code in ("BN310", "BN311", "BN312", "BN313", "BN314", "BN315"):
        told = command("explain", code)
        assert told.code == 0
        assert code in told.out
        assert max(map(len, told.out.splitlines())) <= 80


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_checkpoint_itself_is_never_the_bank(
    suffix: str, command: Command, tmp_path: Path
) -> None:
    copy = tmp_path / f"healthy{suffix}"
    shutil.copy(SAMPLES / "healthy.pt", copy)
    words = asked("--bank", copy, "--overwrite")
    words[1] = copy
    before = copy.read_bytes()
    ran = command(*words)
    assert ran.code == 2
    assert copy.read_bytes() == before
