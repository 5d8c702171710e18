"""BN201 to BN203 and BN302 to BN305, on networks and data whose fault is known."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from alone import measure_alone
from audits import codes, digits, digits_net, exactly_calibrated, gaussian, measured
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.errors import NonFiniteError
from bnaudit.results import Finding

IMAGES, LABELS = digits("test")


@pytest.mark.parametrize("name", ["lagging_ema", "averaged"])
def test_wrong_estimates_disagree_by_shift_and_are_beaten_by_the_batches(name: str) -> None:
    found = measured(digits_net(name), IMAGES, LABELS, attribute="none")
    assert {"BN201", "BN203"} <= found.keys()
    assert "BN202" not in found


@cache
def as_trained_in_pairs() -> dict[str, Finding]:
    few = IMAGES[:200], LABELS[:200]
    return measured(digits_net("healthy"), *few, train_batch_size=2, attribute="none")


def test_tiny_batches_disagree_by_noise() -> None:
    found = as_trained_in_pairs()
    assert "BN202" in found
    assert not {"BN201", "BN203"} & found.keys()


def test_a_healthy_network_agrees_with_itself() -> None:
    found = measured(digits_net("healthy"), IMAGES, LABELS, attribute="none")
    assert not {"BN201", "BN202", "BN203"} & found.keys()


class Denoiser(nn.Module):
    """Outputs that are no class scores: the relative difference decides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_outputs_that_are_no_classes_disagree_by_their_relative_difference() -> None:
    net = exactly_calibrated(Denoiser(), IMAGES)
    assert "BN201" not in measured(net, IMAGES, attribute="none")
    net.body[1].running_var *= 4
    found = measured(net, IMAGES, attribute="none")
    assert found["BN201"].evidence["relative_rms"] > 0.3


def trained_with_eps(eps: float) -> nn.Module:
    """A plain stack on dim digits: the first layer's variance is small against 1e-3."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in (1, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, 2, 1), nn.BatchNorm2d(16, eps=eps), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10))
    x, y = digits("train")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        for index in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(0.02 * x[index]), y[index]).backward()
            optimiser.step()
    return model.eval()


def with_eps(model: nn.Module, eps: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    return model


def test_an_eps_that_was_lost_in_porting_is_told_by_the_accuracy() -> None:
    model = trained_with_eps(1e-3)
    assert "BN204" not in measured(model, 0.02 * IMAGES, LABELS, attribute="none")
    ported = with_eps(model, 1e-5)
    found = measured(ported, 0.02 * IMAGES, LABELS, attribute="none")
    assert found["BN204"].evidence["eps"] == 1e-3
    assert "BN018" in found
    assert all(m.eps == 1e-5 for m in ported.modules() if isinstance(m, nn.BatchNorm2d))


def loaded(order: Tensor, *, labelled: bool, batch_size: int = 32) -> dict[str, Finding]:
    """The digits as a caller's loader gives them, in this order."""
    parts = (IMAGES[order], LABELS[order])[: 1 + labelled]
    loader: DataLoader[Any] = DataLoader(TensorDataset(*parts), batch_size=batch_size)
    return codes(measure_alone(digits_net("healthy"), loader))


SORTED, SHUFFLED = LABELS.argsort(), torch.randperm(len(LABELS), generator=torch.manual_seed(0))


@pytest.mark.parametrize(
    "batch_size", [32, *(pytest.param(size, marks=pytest.mark.slow) for size in (16, 64))]
)
def test_a_loader_sorted_by_class_is_named(batch_size: int) -> None:
    found = loaded(SORTED, labelled=True, batch_size=batch_size)
    assert "by class" in found["BN303"].sentence


def test_a_loader_sorted_by_brightness_is_named_without_labels() -> None:
    order = IMAGES.mean((1, 2, 3)).argsort()
    assert "by source" in loaded(order, labelled=False)["BN303"].sentence


def test_a_loader_sorted_by_class_is_named_by_its_images_alone() -> None:
    assert "inputs" in loaded(SORTED, labelled=False)["BN303"].evidence


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_a_loader_that_shuffles_is_not(seed: int) -> None:
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(seed))
    assert "BN303" not in loaded(order, labelled=True)


def test_a_sorted_data_set_is_drawn_from_at_random() -> None:
    net = digits_net("healthy")
    assert "BN303" not in measured(net, IMAGES[SORTED], LABELS[SORTED], attribute="none")


class Shared(nn.Module):
    """One BatchNorm layer for two branches, the second `gain` times as loud."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.norm(self.gain * x)


@pytest.mark.parametrize(("gain", "differs"), [(3.0, True), (1.0, False)])
def test_a_shared_layer_that_sees_two_distributions_is_named(gain: float, differs: bool) -> None:
    net = exactly_calibrated(Shared(gain).eval(), gaussian(400, 8))
    found = measured(net, gaussian(400, 8))
    assert ("BN304" in found) is differs
    if differs:
        assert found["BN304"].layers == ("norm",)
        assert len(found["BN304"].evidence["norm"]) == 2


class OverSequences(nn.Module):
    """Convolutions over sequences (N, 4, L)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(4, 16, 5, padding=2)
        self.norm = nn.BatchNorm1d(16)
        self.deeper = nn.Conv1d(16, 16, 3, padding=1)
        self.deeper_norm = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        return self.deeper_norm(self.deeper(x)).relu().mean(2)


def padded(sequences: Tensor) -> Tensor:
    """The same, cut to between a third and all of their length and padded with zeros."""
    lengths = torch.randint(20, 60, (len(sequences), 1, 1), generator=torch.manual_seed(3))
    return torch.where(torch.arange(sequences.shape[2]) < lengths, sequences, 0.0)


def test_padding_that_moves_the_statistics_is_named() -> None:
    sequences = gaussian(400, 4, 60) + 1.0
    net = exactly_calibrated(OverSequences().eval(), sequences)
    found = measured(net, padded(sequences))
    assert found["BN305"].layers == ("norm", "deeper_norm")
    assert found["BN305"].evidence["norm"]["without"] < 0.1
    assert 0.2 < found["BN305"].evidence["norm"]["share"] < 0.5


def test_sequences_without_padding_are_not() -> None:
    sequences = gaussian(400, 4, 60) + 1.0
    net = exactly_calibrated(OverSequences().eval(), sequences)
    assert "BN305" not in measured(net, 2 * sequences)


def test_padding_that_the_statistics_include_is_not() -> None:
    sequences = padded(gaussian(400, 4, 60) + 1.0)
    net = exactly_calibrated(OverSequences().eval(), sequences)
    assert "BN305" not in measured(net, sequences)


def test_noise_is_information_where_nobody_says_that_the_model_was_trained_so() -> None:
    net = digits_net("healthy")
    few = IMAGES[:200], LABELS[:200]
    assert measured(net, *few, batch_size=2, attribute="none")["BN202"].severity == "info"
    assert as_trained_in_pairs()["BN202"].severity == "warning"


def test_sorted_batches_are_not_blamed_on_their_size() -> None:
    found = loaded(SORTED, labelled=True)
    assert not {"BN201", "BN202", "BN203"} & found.keys()


def test_statistics_that_are_not_finite_are_named_where_the_activations_break() -> None:
    net = digits_net("healthy")
    net.blocks[1].bn1.running_mean[3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"BN001: .*blocks\.1\.bn1.* That is why layer"):
        measured(net, IMAGES, LABELS, attribute="none")


def test_lists_of_images_of_different_sizes_are_not_taken_for_sorted_batches() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

        def forward(self, images: list[Tensor]) -> Tensor:
            return torch.stack([self.net(image[None]).mean((0, 2, 3)) for image in images])

    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(8, 20, (40, 3, 2), generator=generator).tolist()
    batches = [[torch.rand(3, h, w, generator=generator) for h, w in three] for three in sizes]
    assert "BN303" not in codes(bnaudit.measure(Detector().eval(), batches, attribute="none"))
