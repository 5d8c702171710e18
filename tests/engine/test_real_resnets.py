"""Real networks on real images: the shared CIFAR-10 ResNets of He et al. 2016.

The intervals are checked over many random subsets. One pass keeps the moments of every sample at
every layer; a subset's figures then come from `bnaudit.stats` as `measure` computes them, which
one subset checks end to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from cifar_resnet import DATA, CifarResNet, read_test_images, trained
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Subset, TensorDataset

import bnaudit
from bnaudit.stats.jackknife import Jackknife, deal, group_count, jackknife
from bnaudit.stats.moments import Moments, leave_one_out, pool, scatter
from bnaudit.stats.shift import channel_mean, squared_shift

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="no folder ../shared/data"),
]

DRAWS, DRAWN, CHUNK = 60, 640, 250


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return read_test_images()


def of_samples(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and M2 of every sample, (N, C) in float64."""
    var, mean = torch.var_mean(x, (2, 3), correction=0)
    return mean.double(), var.double() * x[0, 0].numel()


class PerSample:
    """The moments of each sample at each BN layer, as they come in."""

    def __init__(self) -> None:
        self._parts: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
        self._elements: dict[nn.Module, int] = {}

    def add(self, layer: nn.Module, x: Tensor) -> None:
        self._parts.setdefault(layer, []).append(of_samples(x))
        self._elements[layer] = x[0, 0].numel()

    def of(self, layer: nn.Module) -> Moments:
        mean, m2 = (torch.cat(parts) for parts in zip(*self._parts[layer], strict=True))
        return Moments(torch.full((len(mean),), float(self._elements[layer])).double(), mean, m2)

    def result(self) -> dict[nn.Module, Moments]:
        return {layer: self.of(layer) for layer in self._parts}


@torch.no_grad()
def deployed(model: CifarResNet, x: Tensor) -> dict[nn.Module, Moments]:
    """Every layer normalises by its own estimates."""
    seen = PerSample()
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [m.register_forward_pre_hook(lambda m, args: seen.add(m, args[0])) for m in layers]
    for part in x.split(CHUNK):
        model(part)
    for hook in hooks:
        hook.remove()
    return seen.result()


@torch.no_grad()
def set_to_the_truth(model: CifarResNet, x: Tensor) -> dict[nn.Module, Moments]:
    """Layer by layer in order, the estimates become the statistics of all of `x`.

    All images advance together, so that every layer sees what its corrected predecessors make.
    """
    seen = PerSample()

    def normalised(conv: nn.Module, bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
        y = in_chunks(conv, x)
        for part in y.split(CHUNK):
            seen.add(bn, part)
        whole = pool(seen.of(bn))
        bn.running_mean, bn.running_var = whole.mean[0].float(), whole.var[0].float()
        return in_chunks(bn, y)

    x = normalised(model.conv1, model.bn1, x).relu_()
    for block in model.blocks():
        y = normalised(block.conv1, block.bn1, x).relu_()
        y = normalised(block.conv2, block.bn2, y)
        x = y.add_(block.shortcut(x)).relu_()
    return seen.result()


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    first = function(x[:CHUNK])
    out = first.new_empty((len(x), *first.shape[1:]))
    for start, stop in pairwise(range(0, len(x) + 1, CHUNK)):
        out[start:stop] = function(x[start:stop])
    return out


def squared(moments: Moments, layer: nn.Module) -> Tensor:
    """D² of each part, (P,)."""
    estimates = layer.running_mean.double(), layer.running_var.double()
    return channel_mean(squared_shift(moments.mean, moments.var, *estimates, layer.eps).total)


def of_subset(moments: Moments, layer: nn.Module, chosen: Tensor) -> Jackknife:
    """As `measure` does with the samples `chosen`, in that order."""
    k = group_count(len(chosen))
    groups = scatter(moments.select(chosen), deal(len(chosen), k), k)
    plain = float(squared(pool(groups), layer))
    found = jackknife(plain, squared(leave_one_out(groups), layer), groups.count)
    assert found is not None
    return found


def draws(number: int = DRAWS, drawn: int = DRAWN) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2022)
    return [torch.randperm(10_000, generator=generator)[:drawn] for _ in range(number)]


@pytest.fixture(scope="module")
def resnet20() -> CifarResNet:
    return trained(3)


@pytest.fixture(scope="module")
def deployed_moments(
    resnet20: CifarResNet, images: tuple[Tensor, Tensor]
) -> dict[nn.Module, Moments]:
    return deployed(resnet20, images[0])


def test_the_intervals_cover_the_value_of_all_images_in_90_to_99_percent_of_subsets(
    deployed_moments: dict[nn.Module, Moments],
) -> None:
    covered = []
    for layer, moments in deployed_moments.items():
        truth = float(squared(pool(moments), layer))
        for chosen in draws():
            low, high = of_subset(moments, layer, chosen).interval()
            covered.append(max(0.0, low) <= truth <= high)
    print("coverage:", sum(covered) / len(covered))
    assert len(covered) == 19 * DRAWS
    assert 0.90 <= sum(covered) / len(covered) <= 0.99


def test_debiasing_brings_the_mean_over_small_subsets_to_the_value_of_all_images(
    deployed_moments: dict[nn.Module, Moments],
) -> None:
    """160 images, 8 groups; over 400 draws the mean of D² is known to about one percent."""
    ratios: dict[str, list[float]] = {"plain": [], "debiased": []}
    for layer, moments in deployed_moments.items():
        truth = float(squared(pool(moments), layer))
        found = [of_subset(moments, layer, chosen) for chosen in draws(400, 160)]
        ratios["plain"].append(sum(f.plain for f in found) / len(found) / truth)
        ratios["debiased"].append(sum(f.debiased for f in found) / len(found) / truth)
    means = {key: sum(values) / len(values) for key, values in ratios.items()}
    print("mean of D² against its value over all images:", means)
    assert means["plain"] > 1.02
    assert abs(means["debiased"] - 1) < 0.015


def test_true_estimates_are_called_wrong_in_at_most_five_percent_of_subsets(
    images: tuple[Tensor, Tensor],
) -> None:
    model = trained(3)
    by_layer = set_to_the_truth(model, images[0])
    above, plain = [], []
    for layer, moments in by_layer.items():
        assert float(squared(pool(moments), layer)) < 1e-10
        for chosen in draws():
            found = of_subset(moments, layer, chosen)
            above.append(found.interval()[0] > 0)
            plain.append(math.sqrt(found.plain))
    print("above zero:", sum(above) / len(above))
    print("plain ESM:", sum(plain) / len(plain))
    assert len(above) == 19 * DRAWS
    assert sum(above) / len(above) <= 0.05
    audit = bnaudit.measure(model, Subset(TensorDataset(*images), range(0, 10_000, 5)))
    assert audit.verdict is not None
    assert audit.verdict.level == "healthy"


def test_measure_gives_a_subset_the_figures_and_intervals_of_its_sample_moments(
    resnet20: CifarResNet,
    images: tuple[Tensor, Tensor],
    deployed_moments: dict[nn.Module, Moments],
) -> None:
    chosen = draws()[0]
    data = Subset(TensorDataset(*images), chosen.tolist())
    audit = bnaudit.measure(resnet20, data, seed=5)
    order = torch.randperm(DRAWN, generator=torch.Generator().manual_seed(5))
    for name, layer in resnet20.named_modules():
        if not isinstance(layer, nn.BatchNorm2d):
            continue
        expected = of_subset(deployed_moments[layer], layer, chosen[order])
        low, high = (math.sqrt(max(0.0, limit)) for limit in expected.interval())
        found = audit.layer(name).total_shift
        assert found is not None
        assert found.groups == 32
        assert found.plain == pytest.approx(math.sqrt(expected.plain), rel=1e-4)
        assert found.value == pytest.approx(math.sqrt(max(0.0, expected.debiased)), rel=1e-3)
        assert found.low == pytest.approx(low, rel=1e-3)
        assert found.high == pytest.approx(high, rel=1e-3)
        assert found.noise_floor == pytest.approx(math.sqrt(max(0.0, expected.bias)), rel=1e-2)


def test_resnet20_on_all_images_has_the_accuracies_and_shifts_that_were_measured_before(
    resnet20: CifarResNet, images: tuple[Tensor, Tensor]
) -> None:
    """0.810 deployed, 0.772 in train mode at batches of 32: measured without bnaudit."""
    data = TensorDataset(*images)
    audit = bnaudit.measure(resnet20, data, batch_size=256, train_batch_size=32)
    network = audit.network
    assert network is not None
    assert network.deployed is not None
    assert network.batch_statistics is not None
    shifts = [layer.total_shift.value for layer in audit.audited if layer.total_shift]
    print("deployed:", network.deployed)
    print("mini-batches:", network.batch_statistics)
    print("shifts:", [min(shifts), max(shifts)])
    assert network.deployed.samples == 10_000
    assert network.deployed.accuracy == pytest.approx(0.810, abs=0.003)
    assert network.batch_statistics.accuracy == pytest.approx(0.772, abs=0.01)
    assert len(shifts) == 19
    assert min(shifts) >= 0.05
    assert max(shifts) <= 0.35
    assert audit.verdict is not None
    assert audit.verdict.level == "shifted"


@torch.no_grad()
def test_resnet56_has_the_accuracy_and_loss_of_a_plain_loop(images: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = trained(9), images
    audit = bnaudit.measure(model, TensorDataset(x, y), batch_size=250)
    logits = torch.cat([model(part) for part in x.split(CHUNK)])
    assert audit.network is not None
    score = audit.network.deployed
    assert score is not None
    print("deployed:", score)
    assert len(audit.audited) == 55
    assert score.accuracy == pytest.approx((logits.argmax(1) == y).double().mean().item(), abs=2e-4)
    assert score.loss == pytest.approx(functional.cross_entropy(logits, y).item(), rel=1e-4)
