"""`bnaudit leakage` from the command line: what is shown, written, and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from digit_nets import SAMPLES, digits, grouped_by_class, trained
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results.leakage import Leakage

if TYPE_CHECKING:  # other folders have a conftest too
    from conftest import Run

NET = """\
import torch
from torch import nn


def model():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )


def unsure():
    return nn.Sequential(model(), nn.BatchNorm1d(3, track_running_stats=False))


def brightness(batch):
    return (batch[0].mean((1, 2, 3)) > 0.5).tolist()


def too_few(batch):
    return [1]


def fails(batch):
    return batch["patient"]
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`net.py`, `data.npz` (96 images of 8×8, three classes), `plain.npz` without labels."""
    (tmp_path / "net.py").write_text(NET)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (96, 8, 8, 3), dtype=np.uint8)
    x[::2] //= 3
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(96) % 3)
    np.savez(tmp_path / "plain.npz", x=x)
    monkeypatch.chdir(tmp_path)
    return tmp_path


GIVEN = ("--model", "net.py:model", "--data", "npz:data.npz", "--values", "8", "--draws", "2")


def test_a_leaking_checkpoint_is_shown_in_80_columns_and_written(leakage: Run, work: Path) -> None:
    torch.save(trained(grouped_by_class).state_dict(), work / "by_class.pt")
    code, out, _ = leakage(
        "by_class.pt",
        *("--config", SAMPLES / "bnaudit.toml", "--data-arg", "split=verify"),
        *("--train-batch-size", "64", "--group-size", "8", "--draws", "2", "-o", "results"),
    )
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "normalised by 8 inside batches of 64, mean of 2 draws" in out
    assert "by class         100%" in out
    assert "BN320 exploits-batch-mates (warning)" in out
    assert "an output does not depend on the batch" in out
    files = {path.name for path in (work / "results").iterdir()}
    assert files == {
        *("leakage.json", "leakage.csv", "leakage_layers.csv", "leakage.png", "leakage.svg")
    }
    text = (work / "results" / "leakage.json").read_text()
    found = Leakage.from_json(text)
    assert found.to_json() == text
    assert found.model.checkpoint == "by_class.pt"
    assert found.request is not None
    with (work / "results" / "leakage.csv").open() as file:
        rows = {row["by"]: row for row in csv.DictReader(file)}
    grouped = found.sizes[0].arrangement("class")
    assert grouped is not None
    assert grouped.accuracy is not None
    assert float(rows["class"]["accuracy_change"]) == grouped.accuracy.difference
    assert set(rows) == {"deployed", "shuffled", "class", "order"}
    with (work / "results" / "leakage_layers.csv").open() as file:
        assert next(row["name"] for row in csv.DictReader(file)) == "bn"


def test_without_labels_order_remains_and_agreement_is_compared(leakage: Run, work: Path) -> None:
    code, out, _ = leakage(
        *("--model", "net.py:model", "--data", "npz:plain.npz", "--values", "8", "--draws", "2"),
        *("--no-plots", "-o", "results"),
    )
    assert code == 0
    assert "not grouped by class: the data have no class labels" in out
    assert "agreement, %" in out
    assert "in order" in out
    assert {path.name for path in (work / "results").iterdir()} == {"leakage.json", "leakage.csv"}


def test_json_is_all_that_stdout_gets(leakage: Run, work: Path) -> None:
    code, out, _ = leakage(*GIVEN, "--by", "class", "--by", "net.py:brightness", "--json")
    assert code == 0
    document = json.loads(out)
    by = [one["by"] for one in document["sizes"][0]["arrangements"]]
    assert by == ["class", "net.py:brightness"]
    assert document["sizes"][0]["arrangements"][1]["purity"] == 1
    assert not (work / "bnaudit-results").exists()


def test_without_scikit_learn_all_but_the_probes_is_there(
    leakage: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnaudit.stats.probe.find_spec", lambda name: None)
    code, out, _ = leakage(*GIVEN, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["probed"] is None
    assert "layers were not probed: pip install 'bnaudit[leakage]'" in document["notes"]
    assert len(document["sizes"][0]["arrangements"]) == 2
    assert document["dependence"]["layer"] is None


def test_folders_below_the_classes_are_sources(leakage: Run, work: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(96):
        kind, camera = ("cat", "dog")[number % 2], ("left", "right")[number // 48]
        file = work / "images" / kind / camera / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    options = ("--model", "net.py:model", "--values", "8", "--draws", "2", "--json")
    code, out, _ = leakage(*options, "--data", "imagefolder:images")
    assert code == 0
    found = {one["by"]: one for one in json.loads(out)["sizes"][0]["arrangements"]}
    assert found["source"]["groups"] == 4
    assert found["class"]["groups"] == 2
    # Files lie by class: batches in their order are of one.
    assert found["order"]["purity"] == 1


def test_folders_that_are_the_classes_are_no_sources(leakage: Run, work: Path) -> None:
    for number in range(32):
        file = work / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(file)
    options = ("--model", "net.py:model", "--values", "4", "--draws", "2")
    code, out, _ = leakage(*options, "--data", "imagefolder:images", "--json")
    assert code == 0
    notes = " ".join(json.loads(out)["notes"])
    assert "not grouped by source: each class is one folder" in notes
    code, _, err = leakage(*options, "--data", "imagefolder:images", "--by", "source")
    assert code == 2
    assert "--by source: each class is one folder" in err


def test_an_output_that_depends_on_its_batch_fails_with_the_layer(leakage: Run, work: Path) -> None:
    code, out, _ = leakage(*GIVEN, "--model", "net.py:unsure", "--by", "class")
    assert code == 0  # it diagnoses; the gate fails
    assert "BN321 eval-depends-on-batch (error)" in out
    assert "it begins at layer 1 (BatchNorm1d)" in " ".join(out.split())


WRONG = [
    (("--values", "8,x"), "--values 8,x: 'x' is no number; give mini-batch sizes separated by"),
    (("--values", "16,"), "--values 16,: '' is no number; give mini-batch sizes separated by"),
    (("--values", "8,8"), "--values 8,8: 8 stands there twice; give each value once"),
    (("--values", "8.5"), "--values 8.5: 8.5 is no mini-batch size; give a whole number"),
    (("--values", "1"), "--values 1: 1 is no mini-batch size; give a whole number, 2 or more"),
    (("--group-size", "1"), "group_size is 1: give a whole number, 2 or more"),
    (("--select", "BN999"), "BN999"),
    (("--values", "64"), "96 samples do not make two batches of 64"),
    (("--values", "8", "--group-size", "8"), "--values and --group-size exclude each other"),
    (("--group-size", "5", "--train-batch-size", "32"), "--group-size 5 does not divide"),
    (("--draws", "0"), "draws is 0: give a positive number"),
    (("--by", "colour"), "--by colour: give class, source, order, or path/file.py:fn"),
    (("--by", "source"), "--by source: the samples are not from files"),
    (("--by", "net.py:nothing"), "--by net.py:nothing: net.py has no nothing"),
    (("--by", "net.py:too_few"), "--by net.py:too_few gave 1 values for a batch of 32 samples"),
    (("--by", "net.py:fails"), "--by net.py:fails raised"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda one: " ".join(one)[:40])
def test_what_cannot_be_is_told_in_one_line(
    leakage: Run, work: Path, options: tuple[str, ...], message: str
) -> None:
    code, _, err = leakage("--model", "net.py:model", "--data", "npz:data.npz", *options)
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_sizes_may_come_in_any_sequence_and_what_is_none_is_refused() -> None:
    data = TensorDataset(torch.randn(40, 6), torch.arange(40) % 2)
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
    for values in (np.array([8, 4]), torch.tensor([4, 8]), [8.0, np.int64(4)], range(4, 9, 4)):
        found = bnaudit.leakage(net, data, values=values, draws=1, by="order")
        assert [one.size for one in found.sizes] == [4, 8]
        assert Leakage.from_json(found.to_json()) == found
    for values in ([], [4.5], [True], ["8"], 8, "8,16", [4, 4], np.ones((2, 2))):
        with pytest.raises(InputError, match="give"):
            bnaudit.leakage(net, data, values=values)
    wrong = ({"group_size": 8.0}, {"draws": 0}, {"train_batch_size": "8"}, {"group_size": True})
    for options in wrong:
        with pytest.raises(InputError, match=f"{next(iter(options))} is .*: give"):
            bnaudit.leakage(net, data, **options)


def test_a_thousand_samples_are_drawn_unless_told_otherwise() -> None:
    data = TensorDataset(torch.randn(1100, 6), torch.arange(1100) % 2)
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
    for options, samples in (({}, 1000), ({"samples": 60}, 60), ({"samples": None}, 1100)):
        found = bnaudit.leakage(net, data, values=[16], draws=1, by="order", **options)
        assert found.data.samples == samples


def test_a_policy_that_cannot_be_is_told_before_any_sample_is_read() -> None:
    class Unread(torch.utils.data.Dataset[object]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> object:
            raise AssertionError("read")

    with pytest.raises(InputError, match="BN999"):
        bnaudit.leakage(nn.Linear(6, 2), Unread(), policy=bnaudit.Policy(select=("BN999",)))


def test_a_loader_that_sorts_by_class_is_warned_of() -> None:
    images, labels = digits("verify")
    order = labels.argsort()
    data = TensorDataset(images[order], labels[order])
    loader = DataLoader(data, batch_size=16)
    found = bnaudit.leakage(trained(grouped_by_class), loader, values=[8], draws=2, by="order")
    assert found.loader_order
    codes = {finding.code: finding for finding in found.findings}
    assert codes["BN323"].severity == "warning"
    assert "the loader's order" in codes["BN323"].sentence
    assert "BN320" in codes  # better so, as it was trained
    shuffled = DataLoader(data, batch_size=16, shuffle=True)
    found = bnaudit.leakage(trained(grouped_by_class), shuffled, values=[8], draws=2, by="order")
    assert not found.findings


def test_a_model_without_batch_norm_is_looked_at_in_eval_mode() -> None:
    data = TensorDataset(torch.randn(40, 6), torch.arange(40) % 2)
    found = bnaudit.leakage(nn.Linear(6, 2), data, values=[4])
    assert found.sizes == ()
    assert found.probed is None
    assert "the model has no BatchNorm layers" in found.notes
    assert found.dependence is not None
    assert not found.dependence.depends
    assert not found.findings
