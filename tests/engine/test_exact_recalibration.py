"""`exact` gives the corrected condition: the whole population as one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from alone import measure_alone, recalibrate_alone
from population_oracle import (
    NETS,
    Pair,
    as_one_batch,
    by_repeated_updates,
    conv,
    images,
    largest_difference,
    moments,
    net,
    spoilt,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import TensorDataset

from bnaudit.errors import ModelError

ROUNDING = 3e-6
"""Of a standard deviation: float32 activations against float64 ones."""


SOME = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in ("residual", "vectors")))
    for name in NETS
]
"""Branches that meet, and layers over vectors; what differs in the others is what the tests of
every net look at: the statistics against one batch, and against PreciseBN."""


def exactly(model: nn.Module, batches: Any, **options: Any) -> Any:
    return recalibrate_alone(model, batches, **{"method": "exact"} | options)


def only_norms_in_train_mode(model: nn.Module) -> nn.Module:
    for module in model.eval().modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return model


@pytest.mark.parametrize("name", NETS)
def test_exact_is_the_whole_population_as_one_batch(name: str) -> None:
    model, x = net(name), images()
    result = exactly(model, x.split(16))
    assert largest_difference(result.statistics, as_one_batch(model, x)) < ROUNDING
    assert result.report.residual < 1e-6
    assert result.report.residual_before > 0.1


@pytest.mark.parametrize("name", SOME)
def test_exact_and_sequential_agree_in_every_channel(name: str) -> None:
    x = images()
    one_pass = exactly(net(name), x.split(16)).statistics
    layer_by_layer = recalibrate_alone(net(name), x.split(16), method="sequential").statistics
    assert list(one_pass) == list(layer_by_layer)
    assert largest_difference(one_pass, layer_by_layer) < 1e-5


@pytest.mark.parametrize("name", SOME)
def test_updating_all_layers_at_once_ends_at_exact_after_as_many_passes_as_there_are_layers(
    name: str,
) -> None:
    model, x = net(name), images()
    found = exactly(copy.deepcopy(model), x.split(16)).statistics
    layers = sum(isinstance(m, _BatchNorm) for m in model.modules())
    assert largest_difference(by_repeated_updates(model, x, layers), found) < ROUNDING
    assert largest_difference(by_repeated_updates(model, x, 1), found) > 1e-2


QUICK = {("residual", 1), ("residual", 27), ("vectors", 27)}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=[pytest.mark.slow] * ((name, size) not in QUICK))
        for name in NETS
        for size in (1, 4, 27, 32)
    ],
)
def test_exact_recalibration_does_not_depend_on_batch_size(name: str, size: int) -> None:
    x = images()
    whole = exactly(net(name), [x]).statistics
    assert largest_difference(exactly(net(name), x.split(size)).statistics, whole) < ROUNDING


@pytest.mark.parametrize("name", [pytest.param("residual", marks=pytest.mark.slow), "vectors"])
def test_exact_recalibration_does_not_depend_on_the_order_of_samples(name: str) -> None:
    x = images()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    one = exactly(net(name), x.split(16)).statistics
    assert largest_difference(exactly(net(name), x[order].split(16)).statistics, one) < ROUNDING
    seeds = [exactly(net(name), TensorDataset(x), seed=s, batch_size=8) for s in (0, 1)]
    assert all(largest_difference(s.statistics, one) < ROUNDING for s in seeds)


@pytest.mark.parametrize("name", SOME)
def test_after_exact_the_whole_set_as_one_batch_gives_the_outputs_of_inference(name: str) -> None:
    model, x = net(name), images()
    assert exactly(model, x.split(16)).applied
    with torch.no_grad():
        deployed = model(x)
        as_in_training = only_norms_in_train_mode(model)(x)
    torch.testing.assert_close(deployed, as_in_training, rtol=1e-4, atol=1e-5)


def test_a_chain_of_twenty_layers_gives_the_same_outputs_in_both_modes() -> None:
    """PyTorch issue 100048: 0.854 of the output, with statistics that have converged."""
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    chain = nn.Sequential(
        *(nn.BatchNorm1d(2, affine=False, momentum=0.01, eps=1e-12) for _ in range(20))
    )
    with torch.no_grad():
        for _ in range(1024):
            chain(x)
        before = chain.eval()(x)
        exactly(chain, [x])
        deployed = chain(x)
        as_in_training = chain.train()(x)
    assert float((deployed - as_in_training).abs().max()) <= 1e-6
    assert float((before - as_in_training).abs().max()) > 0.1


def test_what_is_written_is_the_biased_variance_and_the_counter_is_left() -> None:
    model, x = net("plain"), images(8)
    model[1].num_batches_tracked.fill_(7)
    exactly(model, x.split(4))
    seen = model[0](x)
    biased = seen.var((0, 2, 3), correction=0)
    torch.testing.assert_close(model[1].running_var, biased, rtol=1e-5, atol=0)
    assert not torch.allclose(model[1].running_var, seen.var((0, 2, 3)), rtol=1e-4, atol=0)
    assert int(model[1].num_batches_tracked) == 7


def test_nothing_but_the_statistics_of_the_layers_is_written() -> None:
    model, x = net("residual").train(), images()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    storage = {key: value.data_ptr() for key, value in model.state_dict().items()}
    exactly(model, x.split(16))
    for key, value in model.state_dict().items():
        assert value.data_ptr() == storage[key], key
        is_statistic = key.endswith(("running_mean", "running_var"))
        assert torch.equal(value, before[key]) is not is_statistic, key
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "prior",
    [pytest.param(1.0, marks=pytest.mark.slow), 64.0, pytest.param(1e4, marks=pytest.mark.slow)],
)
def test_a_prior_mixes_new_and_old_as_if_the_old_came_from_so_many_samples(prior: float) -> None:
    """Schneider et al. 2020; every layer sees what the mixed ones upstream pass on."""
    x = images(48)
    weight = 48 / (prior + 48)

    def mixed(name: str, seen: Pair, own: Pair) -> Pair:
        return tuple((1 - weight) * o + weight * s for s, o in zip(seen, own, strict=True))

    expected = as_one_batch(net("residual"), x, mixed)
    for method in ("exact", "sequential"):
        found = recalibrate_alone(net("residual"), x.split(16), prior=prior, method=method)
        assert largest_difference(found.statistics, expected) < ROUNDING
        assert found.report.prior == prior


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_layers_that_are_not_named_keep_their_statistics_and_pass_on_what_these_make(
    method: Any,
) -> None:
    model, x = net("residual"), images()

    def chosen(name: str, seen: Pair, own: Pair) -> Pair | None:
        return seen if name in ("bn1", "bn4") else None

    expected = as_one_batch(model, x, chosen)
    result = recalibrate_alone(model, x.split(16), layers=["bn1", "/4$/"], method=method)
    assert result.statistics.keys() == {"bn1", "bn4"}
    assert largest_difference(result.statistics, expected) < ROUNDING
    kept = {layer.name: layer.reason for layer in result.report.layers if not layer.changed}
    assert kept == dict.fromkeys(("bn0", "bn2", "bn3"), "not among --layers")


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_above_leaves_layers_alone_whose_own_output_shift_is_not_above_it(method: Any) -> None:
    model, x = net("residual"), images()
    shifts: dict[str, float] = {}

    def above(name: str, seen: Pair, own: Pair) -> Pair | None:
        layer = model.get_submodule(name)
        (m, v), (em, ev) = seen, own
        s, es = (v + layer.eps).sqrt(), (ev + layer.eps).sqrt()
        d2 = ((m - em) / es) ** 2 + (v.sqrt() / es - v.sqrt() / s) ** 2
        gamma2 = layer.weight.double() ** 2
        shifts[name] = float((gamma2 * d2).sum() / gamma2.sum()) ** 0.5
        return seen if shifts[name] > threshold else None

    threshold = -1.0
    as_one_batch(model, x, above)
    threshold = sorted(shifts.values())[2] * 1.01
    expected = as_one_batch(model, x, above)
    result = recalibrate_alone(model, x.split(16), above=threshold, method=method)
    assert 0 < len(expected) < 5
    assert largest_difference(result.statistics, expected) < ROUNDING
    for layer in result.report.layers:
        assert layer.changed or layer.reason == "own output shift not above --above"


def test_above_leaves_a_layer_alone_whose_weights_are_all_zero() -> None:
    """As a residual block's last BN at the start of training: nothing of its shift gets out."""
    model, x = net("residual"), images()
    with torch.no_grad():
        model.bn2.weight.zero_()
    assert "bn2" not in exactly(model, x.split(16), above=0.01).statistics


def test_above_every_shift_nothing_changes() -> None:
    model, x = net("plain"), images()
    before = copy.deepcopy(model.state_dict())
    result = exactly(model, x.split(16), above=1e6)
    assert result.decision.level == "nothing-to-change"
    assert not result.applied
    assert result.statistics == {}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class WithFrozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(3, 4), nn.BatchNorm2d(4)
        self.frozen, self.last = torchvision.ops.FrozenBatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.frozen(self.bn(self.conv(x)))).mean((2, 3))


def test_frozen_layers_keep_their_statistics_unless_they_are_included() -> None:
    model, x = spoilt(WithFrozen()), images()
    kept = exactly(model, x.split(16))
    assert kept.statistics.keys() == {"bn", "last"}
    assert "--include-frozen" in next(la.reason for la in kept.report.layers if la.name == "frozen")
    assert torch.equal(model.frozen.running_mean, torch.zeros(4))
    included = exactly(spoilt(WithFrozen()), x.split(16), include_frozen=True)
    assert included.statistics.keys() == {"bn", "frozen", "last"}
    assert included.report.residual < 1e-6


def test_a_layer_that_is_never_called_keeps_its_statistics_and_is_named() -> None:
    model, x = net("control flow"), images()
    before = model.unused.running_mean.clone()
    result = exactly(model, x.split(16))
    layer = next(la for la in result.report.layers if la.name == "unused")
    assert not layer.changed
    assert layer.reason.startswith("never called")
    assert torch.equal(model.unused.running_mean, before)


class DeepForBright(nn.Module):
    """The second layer is called for batches that hold a bright pixel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.deep = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(x)
        return self.deep(y) if bool(x.max() > 50) else y


@pytest.mark.parametrize("method", ["sequential", "precise"])
def test_a_layer_that_the_first_samples_do_not_call_is_recalibrated(method: Any) -> None:
    x = images(48)
    x[40, 0, 0, 0] = 100
    result = recalibrate_alone(spoilt(DeepForBright()), x.split(16), method=method)
    assert result.statistics.keys() == {"bn", "deep"}


class Domains(nn.Module):
    """A BN for each domain (Wu & Johnson 2021, section 5); a batch is of one domain."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(2))

    def forward(self, x: Tensor, domain: int) -> Tensor:
        return self.norms[domain](x).mean((2, 3))


def test_every_domain_gets_the_statistics_of_its_own_batches() -> None:
    x = images()
    batches = [(part, i % 2) for i, part in enumerate(x.split(16))]

    def forward(model: nn.Module, batch: Any) -> Tensor:
        return model(*batch)

    result = recalibrate_alone(spoilt(Domains()), batches, forward=forward, method="sequential")
    halves = [torch.cat(x.split(16)[i::2]).double() for i in range(2)]
    expected = {f"norms.{i}": moments(half) for i, half in enumerate(halves)}
    assert largest_difference(result.statistics, expected) < ROUNDING


class BatchInTheMiddle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn, self.loose = nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)
        self.last = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.loose(torch.relu(self.bn(x))))


def test_layers_without_running_statistics_are_named_and_explained() -> None:
    result = exactly(spoilt(BatchInTheMiddle()), images().split(16))
    assert len(result.report.batch_dependence) == 1
    assert "loose" in result.report.batch_dependence[0]
    reason = next(la.reason for la in result.report.layers if la.name == "loose")
    assert reason.startswith("no running statistics")
    assert result.statistics.keys() == {"bn", "last"}


class Between(nn.Module):
    """Something between two BN layers."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.middle = nn.BatchNorm2d(3), nn.BatchNorm2d(3), middle

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.middle(self.first(x)))


def test_a_stochastic_forward_is_named_with_the_layer_behind_it() -> None:
    model = spoilt(Between(lambda x: functional.dropout(x, 0.5, training=True)))
    (sentence,) = exactly(model, images().split(16)).report.batch_dependence
    assert "stochastic" in sentence
    assert "second" in sentence


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: x - x.mean(0),
        lambda x: x * (1 + 0.1 * x.std()),
        lambda x: x + x.flip(0),
        lambda x: x / x.abs().amax(),
        lambda x: x + 5e-3 * x.mean((0, 2, 3), keepdim=True),
    ],
    ids=["mean", "deviation", "neighbours", "largest", "a little"],
)
def test_a_forward_that_mixes_samples_is_named_with_the_layer_behind_it(
    middle: Callable[[Tensor], Tensor],
) -> None:
    (sentence,) = exactly(spoilt(Between(middle)), images().split(16)).report.batch_dependence
    assert "depends on the other samples" in sentence
    assert "second" in sentence


@pytest.mark.xfail(strict=True, reason="at batch size 1 a sample is never tried among others")
def test_a_forward_that_mixes_samples_is_named_also_at_batch_size_1() -> None:
    model = spoilt(Between(lambda x: x / x.abs().amax()))
    assert exactly(model, TensorDataset(images()), batch_size=1).report.batch_dependence


@pytest.mark.parametrize("name", SOME)
def test_nothing_is_said_of_a_model_that_depends_on_nothing(name: str) -> None:
    report = exactly(net(name), images().split(16)).report
    assert report.batch_dependence == ()
    assert report.notes == ()
    assert report.method == "exact"


@pytest.mark.parametrize(("dtype", "floor"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_buffers_in_half_precision_keep_their_dtype_and_are_as_exact_as_it_allows(
    dtype: torch.dtype, floor: float
) -> None:
    model, x = net("residual").to(dtype), images().to(dtype)
    result = exactly(model, x.split(16))
    assert model.bn0.running_mean.dtype == dtype
    assert result.statistics["bn0"][0].dtype == torch.float64
    assert result.report.residual < floor
    alone = recalibrate_alone(net("residual").to(dtype), x.split(16), method="sequential")
    assert largest_difference(result.statistics, alone.statistics) < 1e-5


def test_a_model_in_float64_is_exact_to_its_own_rounding() -> None:
    model, x = net("residual").double(), images().double()
    result = exactly(model, x.split(16))
    assert largest_difference(result.statistics, as_one_batch(model, x)) < 1e-6
    assert result.report.residual < 1e-6


def test_a_layer_that_sees_a_single_value_a_channel_keeps_its_statistics() -> None:
    model, x = net("vectors"), images(1)
    result = exactly(model, [x])
    changed = {layer.name: layer.changed for layer in result.report.layers}
    assert changed == {"1": True, "3": True, "7": False, "9": False}
    reasons = {layer.reason for layer in result.report.layers if not layer.changed}
    assert reasons == {"a single value a channel, or none: no variance to take"}


def test_single_values_a_channel_in_every_batch_are_a_population_together() -> None:
    model, x = net("vectors"), images(32)
    result = exactly(model, x.split(1))
    assert largest_difference(result.statistics, as_one_batch(model, x)) < ROUNDING


class Regions(nn.Module):
    """A head on the rows whose first channel is bright: in some batches there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.bn = conv(3, 4), nn.BatchNorm2d(4)
        self.head, self.last = nn.BatchNorm2d(4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.body(x))[x[:, 0].mean((1, 2)) > 0.6]
        return self.last(torch.relu(self.head(y)).mean((2, 3)))


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_an_empty_input_in_some_batches_adds_nothing(method: Any) -> None:
    model, x = spoilt(Regions()), images(48)
    x = x[x[:, 0].mean((1, 2)).argsort()]  # the bright ones come last
    assert int((x[:, 0].mean((1, 2)) > 0.6)[:12].sum()) == 0
    result = recalibrate_alone(model, x.split(6), method=method)
    assert largest_difference(result.statistics, as_one_batch(model, x)) < ROUNDING
    assert result.report.residual < 1e-6


def test_a_layer_whose_input_is_always_empty_keeps_its_statistics() -> None:
    model, x = spoilt(Regions()), images(16) - 100
    result = exactly(model, x.split(4))
    assert result.statistics.keys() == {"bn"}
    assert {la.name for la in result.report.layers if not la.changed} == {"head", "last"}


def test_a_channel_that_is_constant_gets_variance_zero() -> None:
    model, x = net("plain"), images()
    with torch.no_grad():
        model[0].weight[2].zero_()
    result = exactly(model, x.split(16))
    assert float(result.statistics["1"][1][2]) == 0
    assert result.report.residual < 1e-6


def test_means_a_hundred_deviations_from_zero_stay_within_the_bound() -> None:
    model, x = net("plain"), images()
    x = x * 0.01 + 1
    assert exactly(model, x.split(16)).report.residual <= 1e-5


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [pytest.param(8, marks=pytest.mark.slow), 24])
def test_precise_pools_the_moments_of_train_mode_batches(name: str, size: int) -> None:
    """Wu & Johnson 2021, as fvcore's update_bn_stats, by the law of total variance in float64."""
    model, x = net(name), images()
    plain = only_norms_in_train_mode(copy.deepcopy(model).double())
    parts: dict[str, list[Tensor]] = {}
    for layer_name, layer in plain.named_modules():
        if isinstance(layer, _BatchNorm):

            def note(layer: Any, args: Any, name: str = layer_name) -> None:
                mean, var = moments(args[0])
                count = torch.full_like(mean, args[0].numel() / len(mean))
                parts.setdefault(name, []).append(torch.stack([count, mean, var]))

            layer.register_forward_pre_hook(note)
    with torch.no_grad():
        for part in x.double().split(size):
            plain(part)
    expected = {}
    for layer_name, seen in parts.items():
        count, mean, var = torch.stack(seen, 1)
        whole = (count * mean).sum(0) / count.sum(0)
        second = (count * (var + (mean - whole) ** 2)).sum(0) / count.sum(0)
        expected[layer_name] = whole, second
    found = recalibrate_alone(model, x.split(size), method="precise")
    assert largest_difference(found.statistics, expected) < 1e-5
    assert found.report.method == "precise"


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_ema_is_the_rule_of_the_framework(momentum: float) -> None:
    model, x = net("residual"), images()
    trained = only_norms_in_train_mode(copy.deepcopy(model))
    for module in trained.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum
    with torch.no_grad():
        for part in x.split(16):
            trained(part)
    found = recalibrate_alone(model, x.split(16), method="ema", momentum=momentum)
    assert largest_difference(found.statistics, buffers_of(trained)) < 1e-5


def test_ema_takes_each_layers_own_momentum_and_the_cumulative_average_where_it_is_none() -> None:
    model, x = net("vectors"), images()
    model[3].momentum = 0.3
    trained = only_norms_in_train_mode(copy.deepcopy(model))
    with torch.no_grad():
        for part in x.split(16):
            trained(part)
    found = recalibrate_alone(model, x.split(16), method="ema")
    assert largest_difference(found.statistics, buffers_of(trained)) < 1e-5


@pytest.mark.parametrize("tracked", [1, 7, 1000])
def test_ema_goes_on_with_the_cumulative_average_from_the_batches_that_were_counted(
    tracked: int,
) -> None:
    model, x = net("vectors"), images()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = None
            module.num_batches_tracked.fill_(tracked)
    trained = only_norms_in_train_mode(copy.deepcopy(model))
    with torch.no_grad():
        for part in x.split(16):
            trained(part)
    found = recalibrate_alone(model, x.split(16), method="ema")
    assert largest_difference(found.statistics, buffers_of(trained)) < 1e-5
    counters = {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, _BatchNorm)}
    assert counters == {tracked}


def buffers_of(model: nn.Module) -> dict[str, Pair]:
    return {
        name: (module.running_mean, module.running_var)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
    }


def test_precise_depends_on_the_batch_size_where_exact_does_not() -> None:
    x = images()
    precise = [
        recalibrate_alone(net("plain"), x.split(n), method="precise").report for n in (2, 32)
    ]
    assert precise[0].residual > precise[1].residual > 1e-4


class FrozenTwice(WithFrozen):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.frozen(self.frozen(self.bn(self.conv(x)))))


def test_a_layer_that_keeps_its_statistics_may_be_called_several_times() -> None:
    """Nothing is pooled over its calls: one pass does, and there is nothing to say."""
    model, x = spoilt(FrozenTwice()), images()
    result = exactly(model, x.split(16))
    assert result.report.residual < 1e-6
    assert result.report.notes == ()


def test_the_noise_floor_falls_with_the_number_of_samples() -> None:
    few, many = (exactly(net("plain"), images(n).split(16)).report for n in (64, 1024))
    assert few.noise_floor > 2 * many.noise_floor > 0
    assert few.samples_enough == pytest.approx(many.samples_enough, rel=1.0)


class Frames(nn.Module):
    """Eight rows are a clip: a batch of any other number does not go through."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        clips = self.first(x).unflatten(0, (-1, 8))
        shifted = clips + 0.5 * clips.roll(1, 1)
        return self.second(torch.relu(shifted).flatten(0, 1)).mean((2, 3))


class Graph(nn.Module):
    """One graph a batch: nodes are the samples, edges point at them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        h = self.first(nodes)
        sums = torch.zeros_like(h).index_add_(0, edges[1], h[edges[0]])
        return self.second(torch.relu(sums))


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_a_model_that_takes_whole_batches_alone_is_recalibrated(method: Any) -> None:
    """As `measure` does."""
    model, x = spoilt(Frames()), images(64)
    measure_alone(model, x.split(16))
    result = recalibrate_alone(model, x.split(16), method=method)
    assert largest_difference(result.statistics, as_one_batch(spoilt(Frames()), x)) < ROUNDING


def test_a_batch_that_is_a_graph_is_recalibrated() -> None:
    generator = torch.Generator().manual_seed(0)
    graphs = [
        {
            "nodes": torch.randn(20, 4, generator=generator),
            "edges": torch.randint(0, 20, (2, 60), generator=generator),
        }
        for _ in range(6)
    ]
    measure_alone(spoilt(Graph()), graphs)
    assert exactly(spoilt(Graph()), graphs).report.residual < 1e-6


class Remembering(nn.Module):
    """Keeps a skip connection on itself until it is needed, as networks built with hooks do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = conv(3, 4), nn.BatchNorm2d(4)
        self.down, self.down_bn = conv(4, 4, stride=2), nn.BatchNorm2d(4)
        self.last, self.skip = nn.BatchNorm2d(8), None

    def forward(self, x: Tensor) -> Tensor:
        self.skip = torch.relu(self.bn(self.stem(x)))
        y = torch.relu(self.down_bn(self.down(self.skip)))
        y = torch.cat([functional.interpolate(y, scale_factor=2), self.skip], 1)
        return self.last(y).mean((2, 3))


class Hooked(Remembering):
    """Keeps it in a hook's own memory, where nobody can see it."""

    def __init__(self) -> None:
        super().__init__()
        kept: dict[str, Tensor] = {}
        self.bn.register_forward_hook(lambda m, args, y: kept.update(skip=torch.relu(y)))
        self.kept = lambda: kept["skip"]

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.stem(x)))
        y = torch.relu(self.down_bn(self.down(y)))
        y = torch.cat([functional.interpolate(y, scale_factor=2), self.kept()], 1)
        return self.last(y).mean((2, 3))


@pytest.mark.parametrize("size", [16, 15], ids=["equal batches", "a smaller last batch"])
@pytest.mark.parametrize("kind", [Remembering, Hooked])
def test_a_forward_that_keeps_its_state_elsewhere_is_exact_or_told(kind: Any, size: int) -> None:
    """It is one for all forwards: in lockstep each finds that of the last one."""
    x = images(64)
    torch.manual_seed(0)
    expected = recalibrate_alone(spoilt(kind()), x.split(size), method="sequential").statistics
    torch.manual_seed(0)
    model = spoilt(kind())
    try:
        result = exactly(model, x.split(size))
    except ModelError as error:
        assert "sequential" in str(error)  # noqa: PT017
    else:
        assert largest_difference(result.statistics, expected) < 1e-5
        assert result.report.residual < 1e-6
