"""What measure reports of each layer and of the network, against plain hooks in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from alone import measure_alone
from naive import figures, with_batch_statistics
from tiny_models import BN_NAMES, classifier, images, with_wrong_statistics
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from untimed import untimed

from bnaudit.errors import InputError
from bnaudit.results import Audit


def by_batches(n: int, size: int) -> list[torch.Tensor]:
    return list(images(n)[0].split(size))


@pytest.mark.parametrize("name", BN_NAMES)
@pytest.mark.parametrize(("n", "size"), [(192, 32), (200, 32), (7, 7), (200, 200)])
def test_every_figure_of_a_layer_is_what_its_definition_says(name: str, n: int, size: int) -> None:
    model, batches = classifier(), by_batches(n, size)
    audit = measure_alone(model, batches)
    expected, layer = figures(model, batches, name, full=size), audit.layer(name)
    assert audit.channels is not None
    channels = audit.channels.layer(name)
    assert layer.status == "audited"
    assert layer.total_shift is not None
    assert layer.output_shift is not None
    std = np.sqrt(expected.var)
    assert np.abs((channels["expected_mean"] - expected.mean) / std).max() < 1e-6
    np.testing.assert_allclose(channels["expected_var"], expected.var, rtol=1e-6)
    np.testing.assert_allclose(channels["shift"] ** 2, expected.d2, rtol=1e-5)
    module = model.get_submodule(name)
    np.testing.assert_array_equal(channels["estimated_mean"], module.running_mean.double())
    np.testing.assert_array_equal(channels["estimated_var"], module.running_var.double())
    found = {
        "total": layer.total_shift.plain,
        "output": layer.output_shift.plain,
        "mean part": layer.mean_part,
        "scale part": layer.scale_part,
        "discrepancy": layer.discrepancy,
        "mean norm": layer.unnormalised_mean_norm,
        "std norm": layer.unnormalised_std_norm,
        "worst": layer.worst_channel_shift,
        "p95": layer.p95_channel_shift,
    }
    assert found == pytest.approx(
        {
            "total": expected.total_shift,
            "output": expected.output_shift,
            "mean part": expected.mean_part,
            "scale part": expected.scale_part,
            "discrepancy": expected.discrepancy,
            "mean norm": expected.mean_norm,
            "std norm": expected.std_norm,
            "worst": np.sqrt(expected.d2.max()),
            "p95": np.sqrt(np.quantile(expected.d2, 0.95)),
        },
        rel=1e-5,
    )
    assert layer.batch_noise == pytest.approx(expected.batch_noise, rel=1e-4, abs=1e-3)
    assert layer.worst_channel == expected.d2.argmax()
    assert layer.discrepancy_batches == n // size
    assert layer.count == n * {"1": 64, "4": 9, "8": 1}[name]
    assert layer.calls == len(batches)


def plain_figures(audit: Audit) -> dict[str, float]:
    """Everything that depends on the population only, not on how it was read."""
    found: dict[str, float] = {}
    for layer in audit.audited:
        assert layer.total_shift is not None
        assert layer.output_shift is not None
        found |= {
            f"{layer.name} {key}": value
            for key, value in {
                "total": layer.total_shift.plain,
                "output": layer.output_shift.plain,
                "mean": layer.mean_part,
                "scale": layer.scale_part,
                "count": layer.count,
                "worst": layer.worst_channel_shift,
            }.items()
            if value is not None
        }
    network = audit.network
    assert network is not None
    if network.deployed is not None:
        found |= {"accuracy": network.deployed.accuracy, "loss": network.deployed.loss}
    return found


def test_shifts_and_scores_do_not_depend_on_batch_size_or_sample_order() -> None:
    model, data = classifier(), TensorDataset(*images())
    reference = plain_figures(measure_alone(model, data))
    for batch_size, seed in [(1, 0), (7, 1), (64, 2), (200, 3), (1000, 4)]:
        other = measure_alone(model, data, batch_size=batch_size, seed=seed)
        assert plain_figures(other) == pytest.approx(reference, rel=2e-5)


def test_a_loader_a_list_of_batches_and_a_dataset_give_the_same_shifts() -> None:
    model, (x, y) = classifier(), images()
    data = TensorDataset(x, y)
    reference = plain_figures(measure_alone(model, data))
    kinds = [
        DataLoader(data, batch_size=48, shuffle=True),
        DataLoader(data, batch_sampler=[range(0, 90), range(90, 200)]),
        list(zip(x.split(33), y.split(33), strict=True)),
        ((a, b) for a, b in zip(x.split(20), y.split(20), strict=True)),
    ]
    for kind in kinds:
        assert plain_figures(measure_alone(model, kind)) == pytest.approx(reference, rel=2e-5)


def test_the_same_seed_gives_the_same_audit_to_the_last_bit() -> None:
    model, data = classifier(), TensorDataset(*images())
    first, again, other = (measure_alone(model, data, samples=90, seed=s) for s in (3, 3, 4))
    assert untimed(first) == untimed(again)
    assert first.data is not None
    assert other.data is not None
    assert first.data.fingerprint != other.data.fingerprint


def test_a_smaller_last_batch_counts_by_its_size() -> None:
    model = classifier()
    x, _ = images(33)
    x[32] = 50.0  # the one sample of the last batch
    layer = measure_alone(model, list(x.split(32))).layer("1")
    assert layer.total_shift is not None
    whole = figures(model, [x], "1")
    assert layer.total_shift.plain == pytest.approx(whole.total_shift, rel=1e-5)
    assert layer.discrepancy_batches == 1


def test_samples_limits_a_dataset_and_a_stream() -> None:
    model, (x, y) = classifier(), images()
    for data in (TensorDataset(x, y), list(zip(x.split(32), y.split(32), strict=True))):
        audit = measure_alone(model, data, samples=75)
        assert audit.data is not None
        assert audit.data.samples == 75
        assert audit.layer("8").count == 75
        assert audit.network is not None
        assert audit.network.deployed is not None
        assert audit.network.deployed.samples == 75


def test_discrepancy_squared_is_shift_squared_plus_noise_squared_over_a_partition() -> None:
    model = classifier()
    model[8].eps = 1e-8  # where the variance is not far above eps, the noise term can be negative
    audit = measure_alone(model, TensorDataset(*images(192)), batch_size=16)
    for layer in audit.audited:
        assert layer.discrepancy is not None
        assert layer.batch_noise is not None
        assert layer.total_shift is not None
        square = layer.total_shift.plain**2 + layer.batch_noise**2
        assert layer.discrepancy**2 == pytest.approx(square, rel=1e-9)
        assert layer.batch_noise > 0.01


def test_mean_and_scale_parts_add_up_to_the_shift() -> None:
    for layer in measure_alone(classifier(), by_batches(100, 25)).audited:
        assert layer.mean_part is not None
        assert layer.scale_part is not None
        assert layer.total_shift is not None
        assert layer.total_shift.plain**2 == pytest.approx(layer.mean_part**2 + layer.scale_part**2)


@pytest.mark.parametrize("size", [8, 32])
def test_the_mini_batch_condition_is_train_mode_of_the_bn_layers_alone(size: int) -> None:
    model = classifier()
    x, y = images(200)
    whole = 200 // size
    batches = list(zip(x.split(size), y.split(size), strict=True))
    network = measure_alone(model, batches).network
    other = torch.cat(with_batch_statistics(model, x.split(size)[:whole])).double()
    deployed = copy.deepcopy(model).eval()(x[: whole * size]).detach().double()
    labels = y[: whole * size]
    kl = functional.kl_div(
        other.log_softmax(1), deployed.log_softmax(1), reduction="batchmean", log_target=True
    )
    right_a, right_b = deployed.argmax(1) == labels, other.argmax(1) == labels
    assert network is not None
    assert network.task == "classification"
    assert network.batch_size == size
    assert network.compared == whole * size
    assert network.agreement == (deployed.argmax(1) == other.argmax(1)).double().mean()
    assert network.kl == pytest.approx(kl.item(), rel=1e-5)
    assert network.kl > 1e-3
    assert network.deployed is not None
    assert network.deployed.samples == 200
    for score, logits in (
        (network.deployed_compared, deployed),
        (network.batch_statistics, other),
    ):
        assert score is not None
        assert score.samples == whole * size
        assert score.accuracy == (logits.argmax(1) == labels).double().mean()
        assert score.loss == pytest.approx(
            functional.cross_entropy(logits, labels).item(), rel=1e-5
        )
    assert network.only_deployed_correct == (right_a & ~right_b).sum()
    assert network.only_batch_correct == (right_b & ~right_a).sum()


def test_a_train_batch_size_below_the_batch_size_equals_running_at_that_size() -> None:
    model, data = classifier(), TensorDataset(*images(200))
    sliced = measure_alone(model, data, batch_size=70, train_batch_size=16)
    direct = measure_alone(model, data, batch_size=16)
    assert sliced.batch_statistics_size == direct.batch_statistics_size == 16
    assert sliced.network is not None
    assert direct.network is not None
    assert sliced.network.compared == direct.network.compared == 192
    assert sliced.network.agreement == direct.network.agreement
    assert sliced.network.kl == pytest.approx(direct.network.kl, rel=1e-5)
    for a, b in zip(sliced.audited, direct.audited, strict=True):
        assert a.discrepancy == pytest.approx(b.discrepancy, rel=1e-5)
        assert a.discrepancy_batches == b.discrepancy_batches == 12


def test_a_train_batch_size_above_the_loaders_batches_is_refused() -> None:
    loader = DataLoader(TensorDataset(*images(64)), batch_size=8)
    with pytest.raises(InputError, match="train-batch-size 32"):
        measure_alone(classifier(), loader, train_batch_size=32)


def test_a_mini_batch_larger_than_the_data_is_not_compared() -> None:
    audit = measure_alone(classifier(), TensorDataset(*images(20)), train_batch_size=64)
    assert audit.network is not None
    assert audit.network.compared == 0
    assert audit.network.note is not None
    assert all(layer.discrepancy is None for layer in audit.audited)
    assert all(layer.total_shift is not None for layer in audit.audited)


def test_a_layer_that_sees_one_value_a_channel_keeps_its_estimates_and_is_listed() -> None:
    model, (x, y) = classifier(), images(40)
    audit = measure_alone(model, TensorDataset(x, y), batch_size=1)
    assert audit.network is not None
    assert audit.network.kept_estimates == ("8",)
    assert audit.layer("8").discrepancy is None
    assert audit.layer("1").discrepancy is not None
    assert audit.layer("8").note is not None


def test_measuring_at_the_truth_finds_nothing_beyond_noise() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 4))
    x, y = images(2000)
    model[0].running_mean.copy_(x.mean((0, 2, 3)))
    model[0].running_var.copy_(x.var((0, 2, 3), correction=0))
    audit = measure_alone(model, TensorDataset(x, y))
    layer = audit.layer("0")
    assert layer.total_shift is not None
    assert layer.total_shift.plain < 1e-5
    assert layer.total_shift.low == 0.0
    assert audit.verdict is not None
    assert audit.verdict.level == "healthy"


def test_a_layer_with_many_wrong_channels_is_called_shifted() -> None:
    audit = measure_alone(classifier(), TensorDataset(*images(400)))
    assert audit.verdict is not None
    assert audit.verdict.level == "shifted"
    for layer in audit.audited:
        estimate = layer.total_shift
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.groups == 20
        assert len(layer.left_out_squared_shift) == 20


def test_fewer_than_eight_samples_give_figures_without_intervals() -> None:
    audit = measure_alone(classifier(), TensorDataset(*images(7)))
    for layer in audit.audited:
        assert layer.total_shift is not None
        assert layer.total_shift.plain > 0
        assert layer.total_shift.low is None
        assert layer.total_shift.high is None
    assert audit.verdict is not None
    assert audit.verdict.level == "undecided"


def test_one_sample_is_enough_for_figures() -> None:
    layer = measure_alone(classifier(), TensorDataset(*images(1))).layer("1")
    assert layer.total_shift is not None
    assert layer.count == 64


def test_a_pruned_channel_dominates_the_shift_and_not_the_output_shift() -> None:
    model = classifier()
    with torch.no_grad():
        model[1].weight[2] = 0.0
    model[1].running_var[2] = 1e-8
    layer = measure_alone(model, by_batches(64, 32)).layer("1")
    assert layer.total_shift is not None
    assert layer.output_shift is not None
    assert layer.total_shift.plain > 50
    assert layer.output_shift.plain < 3
    assert layer.worst_channel == 2


def test_a_layer_whose_gammas_are_all_zero_has_no_output_shift() -> None:
    model = classifier()
    nn.init.zeros_(model[1].weight)
    layer = measure_alone(model, by_batches(64, 32)).layer("1")
    assert layer.output_shift is None
    assert layer.total_shift is not None


def undefined(channels: list[int]) -> nn.Module:
    """The last BN layer divides by nothing in some channels, whose outputs are then cut off."""
    torch.manual_seed(0)
    model = with_wrong_statistics(nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, eps=0.0)))
    model[1].running_var[channels] = -1.0
    return model


def test_undefined_channels_are_listed_and_left_out_of_averages() -> None:
    model, batches = undefined([1, 3]), by_batches(64, 16)
    layer = measure_alone(model, batches).layer("1")
    assert layer.undefined_channels == (1, 3)
    with np.errstate(invalid="ignore"):
        expected = figures(model, batches, "1").d2
    assert layer.total_shift is not None
    assert layer.total_shift.plain**2 == pytest.approx(np.nanmean(expected), rel=1e-5)
    assert layer.worst_channel == int(np.nanargmax(expected))
    assert layer.discrepancy is not None
    assert layer.discrepancy >= layer.total_shift.plain


def test_a_layer_without_a_defined_channel_has_no_figures_but_a_note() -> None:
    audit = measure_alone(undefined([0, 1, 2, 3, 4]), by_batches(64, 16))
    layer = audit.layer("1")
    assert layer.undefined_channels == (0, 1, 2, 3, 4)
    assert layer.total_shift is None
    assert layer.note is not None


@pytest.mark.parametrize("undefined_channels", [[1], [0, 1, 2]])
def test_a_model_with_undefined_channels_is_not_called_healthy(
    undefined_channels: list[int],
) -> None:
    x, _ = images(400)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, eps=0.0))
    for layer in model:
        layer.running_mean.copy_(x.mean((0, 2, 3)))
        layer.running_var.copy_(x.var((0, 2, 3), correction=0))
    model[0] = nn.Identity() if len(undefined_channels) < 3 else model[0]
    model[1].running_mean.zero_()
    model[1].running_var[undefined_channels] = -1.0
    if len(undefined_channels) < 3:
        model[1].running_mean.copy_(x.mean((0, 2, 3)))
    audit = measure_alone(model, list(x.split(40)))
    assert audit.layer("1").undefined_channels == tuple(undefined_channels)
    assert audit.verdict is not None
    assert audit.verdict.level != "healthy"


def test_a_running_mean_that_is_not_a_number_keeps_the_parts_consistent() -> None:
    model = undefined([])
    model[1].running_mean[2] = float("nan")
    layer = measure_alone(model, by_batches(400, 40)).layer("1")
    assert layer.undefined_channels == (2,)
    assert layer.total_shift is not None
    assert layer.mean_part is not None
    assert layer.scale_part is not None
    assert layer.total_shift.plain**2 == pytest.approx(layer.mean_part**2 + layer.scale_part**2)


def test_a_running_mean_that_is_infinite_is_reported_and_not_a_crash() -> None:
    model = undefined([])
    model[1].running_mean[2] = float("inf")
    audit = measure_alone(model, by_batches(400, 40))
    assert audit.verdict is not None
    assert audit.verdict.level != "healthy"


def test_a_model_that_changes_its_input_in_place_is_compared_on_the_same_samples() -> None:
    class Normalising(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.net, self.in_place = classifier(), in_place

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x.sub_(2.0).mul_(0.5) if self.in_place else (x - 2.0) * 0.5)

    data = TensorDataset(*images(96))
    pure, in_place = (measure_alone(Normalising(flag), data).network for flag in (False, True))
    assert pure is not None
    assert in_place is not None
    assert in_place.kl == pytest.approx(pure.kl, rel=1e-6)
    assert in_place.agreement == pure.agreement


def test_the_audit_says_what_was_read_and_how() -> None:
    audit = measure_alone(classifier(), TensorDataset(*images(200)), batch_size=25, seed=5)
    assert audit.data is not None
    assert (audit.data.samples, audit.data.available, audit.data.batch_size) == (200, 200, 25)
    assert (audit.data.seed, audit.data.groups, audit.data.labelled) == (5, 10, True)
    assert audit.model.parameters == sum(p.numel() for p in classifier().parameters())
    assert audit.model.bn_layers == {"BatchNorm2d": 2, "BatchNorm1d": 1}
    assert (audit.device, audit.dtype) == ("cpu", "float32")
    assert [layer.name for layer in audit.audited] == list(BN_NAMES)


def test_what_measure_finds_survives_its_json() -> None:
    audit = measure_alone(classifier(), TensorDataset(*images(200)))
    assert Audit.from_json(audit.to_json()).to_json() == audit.to_json()


def test_progress_is_told_of_every_sample() -> None:
    told: dict[str, list[int]] = {}

    @contextmanager
    def bar(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        yield told.setdefault(what, []).append

    measure_alone(classifier(), TensorDataset(*images(70)), progress=bar)
    assert told["measuring"] == [32, 32, 6]
