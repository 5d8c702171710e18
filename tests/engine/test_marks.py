"""Which samples are right, and on which both conditions agree: what paired comparison needs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results import Audit, Marks, NetworkAudit


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model.get_submodule("1").get_buffer("running_mean").normal_()
    return model.eval()


def samples(n: int = 205) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def figures(audit: Audit) -> NetworkAudit:
    assert audit.network is not None
    return audit.network


def test_the_marks_are_those_of_each_sample_in_reading_order() -> None:
    model, (x, y) = network(), samples()
    batches = list(zip(x.split(50), y.split(50), strict=True))
    found = figures(bnaudit.measure(model, batches, attribute="none"))
    with torch.no_grad():
        right = (model(x).argmax(1) == y).numpy()
        top = model(x).argmax(1)
        model.train()
        other = torch.cat([model(part) for part in x[:200].split(50)]).argmax(1)
    assert found.correct is not None
    assert found.agreed is not None
    assert (found.correct.array() == right).all()
    assert (found.agreed.array() == (top[:200] == other).numpy()).all()
    assert 0 < found.agreed.array().mean() < 1
    assert found.agreement == pytest.approx(found.agreed.array().mean())


def test_the_standard_error_of_the_loss_is_that_of_a_mean() -> None:
    model, (x, y) = network(), samples()
    found = figures(bnaudit.measure(model, TensorDataset(x, y), attribute="none")).deployed
    assert found is not None
    with torch.no_grad():
        losses = functional.cross_entropy(model(x).double(), y, reduction="none").numpy()
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    assert found.loss_standard_error == pytest.approx(error, rel=1e-5)


def test_a_stream_of_which_only_a_part_has_labels_has_no_marks_of_what_is_right() -> None:
    x, y = samples(100)
    found = figures(bnaudit.measure(network(), [(x[:50], y[:50]), x[50:]], attribute="none"))
    assert found.deployed is not None
    assert found.deployed.samples == 50
    assert found.correct is None
    assert found.agreed is not None


def test_outputs_that_are_no_class_scores_have_no_marks() -> None:
    found = figures(bnaudit.measure(network(), samples()[0].split(50), task="other"))
    assert found.correct is None
    assert found.agreed is None


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_marks_come_back_from_their_bits(count: int) -> None:
    holds = np.random.default_rng(count).random(count) < 0.5
    assert (Marks.of(holds).array() == holds).all()


def test_the_marks_of_fifty_thousand_samples_are_less_than_ten_kilobytes() -> None:
    assert len(Marks.of(np.ones(50_000, dtype=bool)).bits) < 10_000


def test_an_audit_keeps_its_marks_and_what_each_group_does_to_the_output_shift() -> None:
    audit = bnaudit.measure(network(), TensorDataset(*samples()), attribute="none")
    read = Audit.from_json(audit.to_json())
    assert read.network == audit.network
    assert read.layers == audit.layers
    (layer,) = audit.layers
    assert layer.output_shift is not None
    assert len(layer.left_out_squared_output_shift) == layer.output_shift.groups
    assert "left_out_squared_output_shift" not in audit.to_frame()


def test_the_left_out_output_shifts_are_weighted_by_what_each_channel_contributes() -> None:
    model = network()
    gamma = model.get_submodule("1").get_parameter("weight")
    with torch.no_grad():
        gamma.zero_()
        gamma[0] = 2.0  # one channel alone: its own shift
    x, _ = samples(200)
    norm = model.get_submodule("1")
    (layer,) = bnaudit.measure(model, TensorDataset(x), attribute="none", seed=3).layers
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3)).numpy()
    with torch.no_grad():
        z = model.get_submodule("0")(x)[:, 0].double().numpy()[order]
    k = len(layer.left_out_squared_output_shift)
    group = np.arange(200) * k // 200
    old = float(norm.get_buffer("running_mean")[0]), float(norm.get_buffer("running_var")[0]) + 1e-5
    for j, found in enumerate(layer.left_out_squared_output_shift):
        rest = z[group != j]
        scale = rest.std() * (1 / np.sqrt(old[1]) - 1 / np.sqrt(rest.var() + 1e-5))
        assert found == pytest.approx((rest.mean() - old[0]) ** 2 / old[1] + scale**2, rel=1e-4)


def test_a_document_from_before_there_were_marks_is_read() -> None:
    audit = bnaudit.measure(network(), TensorDataset(*samples()), attribute="none")
    document = json.loads(audit.to_json())
    for name in ("correct", "agreed"):
        del document["network"][name]
    del document["network"]["deployed"]["loss_standard_error"]
    for layer in document["layers"]:
        del layer["left_out_squared_output_shift"]
    read = Audit.from_json(json.dumps(document))
    assert figures(read) == replace(
        figures(audit),
        correct=None,
        agreed=None,
        deployed=replace(figures(audit).deployed, loss_standard_error=None),  # type: ignore[type-var]
    )
    assert read.layers[0].left_out_squared_output_shift == ()


@pytest.mark.parametrize(
    "marks",
    [
        {"count": 17, "bits": "AAA="},
        {"count": 100, "bits": "AAA="},
        {"count": -1, "bits": ""},
        {"count": 10**9, "bits": ""},
        {"count": 3, "bits": "no bits"},
        {"count": 3, "bits": "äöü"},
        {"count": "many", "bits": "AA=="},
        {"count": 3},
        [True, False],
    ],
)
def test_damaged_marks_are_refused_by_the_field(marks: object) -> None:
    audit = bnaudit.measure(network(), TensorDataset(*samples()), attribute="none")
    document = json.loads(audit.to_json())
    document["network"]["correct"] = marks
    with pytest.raises(InputError, match=r"network\.correct"):
        Audit.from_json(json.dumps(document))
