"""`bnaudit inspect CHILD --against PARENT`: what happened between the two, on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from workplace import Run, network

import bnaudit as package
from bnaudit.results.inspection import Inspection


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A network of 30 layers, and a copy in which three of them tell different stories."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(30):
        layers += [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)]
    net = nn.Sequential(*layers)
    net(torch.randn(16, 4, 8, 8))
    torch.save(net.state_dict(), "parent.pt")
    net[11].running_mean += 0.5
    net[41].reset_running_stats()
    with torch.no_grad():
        net[50].weight += 0.1 * torch.randn_like(net[50].weight)
    torch.save(net.state_dict(), "child.pt")
    return Path("child.pt"), Path("parent.pt")


EXPECTED = {
    "BN053": ["41"],
    "BN050": ["51", "53", "55", "57", "59"],
    "BN051": ["11"],
}


def test_the_document_holds_the_layers_and_what_was_found(
    bnaudit: Run, pair: tuple[Path, Path]
) -> None:
    child, parent = pair
    ran = bnaudit("inspect", child, "--against", parent, "--json")
    assert ran.code == 0
    document = json.loads(ran.out)
    found = {f["code"]: f["layers"] for f in document["findings"] if f["code"] >= "BN050"}
    assert found == EXPECTED
    against = document["against"]
    assert against["parent"] == "parent.pt"
    assert [layer["name"] for layer in against["layers"]] == [str(i) for i in range(1, 60, 2)]
    layers = {layer["name"]: layer for layer in against["layers"]}
    assert layers["11"]["statistics"] == "moved"
    assert layers["41"]["reset"]
    assert layers["51"]["own_change"] > 0.1
    assert layers["53"]["own_change"] == 0
    assert layers["53"]["largest_upstream_change"] == layers["51"]["own_change"]
    again = Inspection.from_json(ran.out)
    assert again.against == package.inspect(child, against=parent).against
    assert json.loads(again.to_json()) == document


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_table_shows_what_changed_first_and_cuts_nothing(
    bnaudit: Run, pair: tuple[Path, Path], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = bnaudit("inspect", *pair[:1], "--against", pair[1])
    section = ran.out.partition("\nAgainst parent.pt\n")[2].partition("\nFindings")[0]
    lines = section.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in section
    rows = [line.split() for line in lines if len(line.split()) > 4]
    told = {row[0]: row[-1] for row in rows if row[0].isdigit()}
    assert len(told) == 12
    assert [name for name in told if told[name] == "stale"] == EXPECTED["BN050"]
    assert told["41"] == "reset"
    assert told["11"] == "drifted"
    assert "28 exactly the parent's, 1 moved, 1 reset" in " ".join(section.split())


def test_all_layers_are_shown_on_request(bnaudit: Run, pair: tuple[Path, Path]) -> None:
    ran = bnaudit("inspect", *pair[:1], "--against", pair[1], "--all")
    section = ran.out.partition("\nAgainst parent.pt\n")[2].partition("\nFindings")[0]
    assert (
        sum(line.split()[:1] == [str(i)] for i in range(60) for line in section.splitlines()) == 30
    )


def test_the_same_file_is_the_same(bnaudit: Run, pair: tuple[Path, Path]) -> None:
    ran = bnaudit("inspect", pair[1], "--against", pair[1])
    assert ran.code == 0
    assert "all 30 layers" not in ran.out.partition("Against")[2]
    assert "30 exactly the parent's" in ran.out
    assert "BN05" not in ran.out


def test_the_place_of_the_childs_weights_is_read_in_the_parent_too(
    bnaudit: Run, pair: tuple[Path, Path]
) -> None:
    child, parent = (torch.load(path) for path in pair)
    torch.save({"state_dict": parent, "ema": child}, "both.pt")
    torch.save({"state_dict": parent}, "one.pt")
    same = bnaudit("inspect", "both.pt", "--checkpoint-key", "ema", "--against", "both.pt")
    assert "30 exactly the parent's" in same.out
    assert ["read", "at", "ema"] in [line.split() for line in same.out.splitlines()]
    # A parent without that place is read where its weights are.
    other = bnaudit("inspect", "both.pt", "--checkpoint-key", "ema", "--against", "one.pt")
    assert ["read", "at", "state_dict"] in [line.split() for line in other.out.splitlines()]
    assert "28 exactly the parent's, 1 moved, 1 reset" in " ".join(other.out.split())
    flat = bnaudit("inspect", "both.pt", "--against", pair[1], "--json")
    assert json.loads(flat.out)["against"]["key"] == ""
    assert "the top level of the file" in bnaudit("inspect", pair[0], "--against", pair[1]).out
    help_text = " ".join(bnaudit("inspect", "--help").out.replace("│", " ").split())
    assert "--checkpoint-key names the place in it too, where it has that one" in help_text


def test_weights_that_became_infinite_are_counted(bnaudit: Run, pair: tuple[Path, Path]) -> None:
    state = torch.load(pair[1])
    state["0.weight"][0, 0, 0, 0] = 1e5
    torch.save(state, "large.pt")
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save(half, "half.pt")
    ran = bnaudit("inspect", "half.pt", "--against", "large.pt")
    assert "1 became infinite" in " ".join(ran.out.split())


def test_layers_that_are_numbers_are_never_called_layer_twice(
    bnaudit: Run, pair: tuple[Path, Path]
) -> None:
    ran = bnaudit("inspect", pair[0], "--against", pair[1], "--json")
    sentences = [finding["sentence"] for finding in json.loads(ran.out)["findings"]]
    assert not [text for text in sentences if "layer layer" in text.lower()]
    assert any("layer 51" in text for text in sentences)


def test_several_parents_are_taken(bnaudit: Run, pair: tuple[Path, Path]) -> None:
    first, second = (torch.load(path) for path in pair)
    merged = {
        name: (first[name] + second[name]) / 2 if first[name].is_floating_point() else first[name]
        for name in first
    }
    torch.save(merged, "merged.pt")
    ran = bnaudit("inspect", "merged.pt", "--against", pair[0], "--against", pair[1], "--json")
    document = json.loads(ran.out)
    assert document["against"]["parents"] == ["child.pt", "parent.pt"]
    assert document["against"]["weights"]["shares"] == pytest.approx([0.5, 0.5], abs=1e-3)
    mixed = [f for f in document["findings"] if f["code"] == "BN052"]
    assert [f["layers"] for f in mixed] == [["11", "41"]]


def test_findings_can_be_ignored_and_thresholds_set(bnaudit: Run, pair: tuple[Path, Path]) -> None:
    ran = bnaudit(
        "inspect", pair[0], "--against", pair[1], "--json", "--select", "BN05",
        "--ignore", "BN053", "--threshold", "BN051.distance=100",
    )  # fmt: skip
    found = [(f["code"], f["severity"]) for f in json.loads(ran.out)["findings"]]
    assert found == [("BN050", "warning"), ("BN051", "info")]


@pytest.mark.parametrize("parent", ["missing.pt", "other.pt", "text.pt"])
def test_a_parent_that_is_none_is_one_line(
    bnaudit: Run, pair: tuple[Path, Path], parent: str
) -> None:
    torch.save({"far.away": torch.zeros(3)}, "other.pt")
    Path("text.pt").write_text("not a checkpoint")
    ran = bnaudit("inspect", pair[0], "--against", parent)
    assert ran.code == 2
    assert ran.out == ""
    assert len(ran.err.strip().splitlines()) == 1
    assert parent in ran.err


def test_networks_without_batchnorm_are_compared_too(
    bnaudit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(3, 2).state_dict(), "a.pt")
    torch.save(nn.Linear(3, 2).state_dict(), "b.pt")
    ran = bnaudit("inspect", "a.pt", "--against", "b.pt")
    assert ran.code == 0
    assert "100% of 8 changed" in ran.out
    assert "no BatchNorm layer is in both" in ran.out


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    for name, seed in (("a.pt", 0), ("b.pt", 1)):
        torch.manual_seed(seed)
        torch.save(network().state_dict(), tmp_path / name)
    code = (
        "import sys; from bnaudit.verbs.inspect import inspect; inspect('a.pt', against=['b.pt']);"
        "print([m for m in ('torch', 'scipy', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
