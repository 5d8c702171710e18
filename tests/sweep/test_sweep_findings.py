"""BN120 to BN124, BN220 to BN222: each from a real network, and where there is nothing to find."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from sweep_inputs import brighter, digits, pixels, sample_model
from torch import nn
from torch.utils.data import TensorDataset

from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import Policy
from bnaudit.results.findings import Finding
from bnaudit.results.sweep import Sweep
from bnaudit.verbs.sweep_batch_size import sweep_batch_size
from bnaudit.verbs.sweep_example_weight import sweep_example_weight
from bnaudit.verbs.sweep_prior import sweep_prior
from bnaudit.verbs.sweep_samples import sweep_samples


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


def with_limits(sweep: Sweep, **thresholds: dict[str, float]) -> tuple[Finding, ...]:
    return conclude([sweep], Policy(thresholds=thresholds).checked())


@cache
def samples_of_lagging() -> Sweep:
    return sweep_samples(
        sample_model("lagging_ema"),
        digits("train", 256),
        verify=digits("test", 300),
        values=[8, 128, 256],
        draws=3,
    )


def test_the_number_of_samples_that_suffices_is_information_with_its_command() -> None:
    (finding,) = samples_of_lagging().findings
    assert (finding.code, finding.severity) == ("BN120", "info")
    assert finding.evidence["value"] == 128
    assert finding.command is not None
    assert "bnaudit.recalibrate" in finding.command
    assert finding.sentence in samples_of_lagging().conclusions[0].sentence


def test_more_samples_than_usual_are_a_warning() -> None:
    usual = {"usual": 100.0}
    (finding,) = with_limits(samples_of_lagging(), BN120=usual, BN121=usual)
    assert (finding.code, finding.severity) == ("BN121", "warning")
    assert finding.evidence["value"] == 128


def test_a_prior_that_helps_too_little_is_no_finding() -> None:
    sweep = sweep_prior(
        sample_model("healthy"), digits("train", 12), verify=digits("test"), values=[0, 1e6]
    )
    assert codes(sweep.findings) == ["BN122"]
    assert with_limits(sweep, BN122={"gain": 1.0}) == ()


def test_a_prior_that_hurts_is_no_finding() -> None:
    sweep = sweep_prior(
        sample_model("healthy"), brighter("train", 64), verify=brighter("test", 150), values=[0, 64]
    )
    assert sweep.findings == ()


@cache
def sizes_of_small_batch(train_batch_size: int | None) -> Sweep:
    return sweep_batch_size(
        sample_model("small_batch"),
        digits("test", 400),
        train_data=digits("train", 400),
        values=[2, 32],
        train_batch_size=train_batch_size,
    )


def test_the_size_it_was_probably_trained_at_is_information() -> None:
    found = {finding.code: finding for finding in sizes_of_small_batch(None).findings}
    assert found["BN220"].severity == "info"
    assert "Probably trained at mini-batches of about" in found["BN220"].sentence


def test_a_network_whose_accuracy_is_the_same_at_every_size_tells_none() -> None:
    sweep = sweep_batch_size(sample_model("healthy"), digits("test", 256), values=[32, 64])
    assert sweep.findings == ()


def test_a_small_batch_that_the_user_names_is_a_warning() -> None:
    found = {finding.code: finding for finding in sizes_of_small_batch(2).findings}
    assert "BN220" not in found  # nothing to guess
    assert found["BN221"].severity == "warning"
    assert found["BN221"].sentence.startswith("It was trained with mini-batches of 2.")
    assert found["BN221"].evidence["larger"]["accuracy"]["low"] > 0
    assert "BN221" not in codes(with_limits(sizes_of_small_batch(2), BN221={"gain": 0.5}))


def test_a_batch_size_that_is_not_small_is_no_finding() -> None:
    assert "BN221" in codes(with_limits(sizes_of_small_batch(2), BN221={"size": 2}))
    sweep = sweep_batch_size(
        sample_model("small_batch"), digits("test", 300), values=[32, 64], train_batch_size=32
    )
    assert "BN221" not in codes(sweep.findings)


class Scaled(nn.Module):
    """A classifier of the larger of two means, behind a scale that differs between examples."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(2)
        self.out = nn.Linear(2, 2)
        with torch.no_grad():
            self.out.weight.copy_(6 * torch.eye(2))
            self.out.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.bn(x).mean(2))


def offset_examples(offset: float) -> tuple[nn.Module, TensorDataset]:
    """Examples whose two channels have an offset of their own, which says nothing of the class."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (300,), generator=generator)
    x = torch.randn(300, 2, 16, generator=generator)
    x[torch.arange(300), y] += 0.6
    x += offset * torch.randn(300, 2, 1, generator=generator)
    model = Scaled().train()
    model.bn.momentum = 1.0
    with torch.no_grad():
        model(x)
    return model.eval(), TensorDataset(x, y)


def test_example_weighing_that_lowers_the_loss_is_information() -> None:
    model, data = offset_examples(1.0)
    sweep = sweep_example_weight(model, data, values=[0.0, 0.3])
    (finding,) = sweep.findings
    assert (finding.code, finding.severity) == ("BN222", "info")
    assert finding.command == 'bnaudit.nn.convert(model, "example-weighing", alpha=0.3)'


def test_example_weighing_that_does_not_is_no_finding() -> None:
    model, data = offset_examples(0.0)
    assert sweep_example_weight(model, data, values=[0.0, 0.3]).findings == ()


def test_without_labels_there_is_nothing_to_find() -> None:
    data = TensorDataset(pixels("test", 64)[0])
    assert sweep_batch_size(sample_model("small_batch"), data, values=[2, 16]).findings == ()
    assert sweep_example_weight(sample_model("small_batch"), data, values=[0.1]).findings == ()


@pytest.mark.parametrize("code", ["BN120", "BN121", "BN122", "BN123", "BN124", "BN220", "BN221"])
def test_a_finding_can_be_ignored(code: str) -> None:
    for sweep in (samples_of_lagging(), sizes_of_small_batch(2)):
        assert code not in codes(conclude([sweep], Policy(ignore=(code,)).checked()))
