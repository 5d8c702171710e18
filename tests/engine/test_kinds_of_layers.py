"""Which modules count as BatchNorm layers, and what measure says of each kind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import timm.layers
import torch
import torchvision
from alone import measure_alone
from small_nets import around, dataset, filled, images, shift_of
from torch import Tensor, nn
from untimed import untimed

from bnaudit.engine.layers import find_layers
from bnaudit.errors import ModelError, NonFiniteError
from bnaudit.results import LayerAudit


class DetrFrozen(nn.Module):
    """As in DETR: everything a buffer, eps a constant inside forward."""

    def __init__(self, n: int, eps: float = 1e-5) -> None:
        super().__init__()
        for name, value in {
            "weight": 1.0,
            "bias": 0.0,
            "running_mean": 0.0,
            "running_var": 1.0,
        }.items():
            self.register_buffer(name, torch.full((n,), value))
        self._constant = lambda: eps

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        rv, rm = self.running_var.reshape(1, -1, 1, 1), self.running_mean.reshape(1, -1, 1, 1)
        scale = w * (rv + self._constant()).rsqrt()
        return x * scale + (b - rm * scale)


class Custom(nn.Module):
    """A BatchNorm of one's own: right axis or last axis, with or without a momentum."""

    def __init__(self, n: int, axis: int = 1, factor: float = 1.0, momentum: float | None = 0.1):
        super().__init__()
        self.eps, self.axis, self.factor = 1e-3, axis, factor
        if momentum is not None:
            self.momentum = momentum
        self.weight, self.bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.movedim(self.axis, -1)
        y = (rows - self.running_mean) * (self.running_var + self.eps).rsqrt()
        return (y * self.weight * self.factor + self.bias).movedim(-1, self.axis)


class ChannelsLast(nn.Module):
    """Hands the layer inside its input as (N, H, W, C)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class CalledBy(nn.Module):
    """Calls its layer in a way of its own."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def audited(model: nn.Module, name: str = "1", n: int = 64) -> LayerAudit:
    return measure_alone(model, dataset(n)).layer(name)


def assert_figures(found: LayerAudit, model: nn.Module, layer: nn.Module, eps: float) -> None:
    """Figures as of the definition, on what the first module of `model` puts out."""
    assert found.status == "audited"
    assert found.total_shift is not None
    expected = shift_of(model[0](images()), layer, eps)  # type: ignore[index]
    assert found.total_shift.plain == pytest.approx(expected, rel=1e-5)
    assert found.total_shift.plain > 0.05
    assert found.eps == eps


KNOWN: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(6),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(6),
    "no affine map": lambda: nn.BatchNorm2d(6, affine=False),
    "momentum None": lambda: nn.BatchNorm2d(6, momentum=None),
    "timm BatchNormAct2d": lambda: timm.layers.BatchNormAct2d(6),
    "torchvision FrozenBatchNorm2d": lambda: torchvision.ops.FrozenBatchNorm2d(6),
    "custom": lambda: Custom(6),
    "custom without momentum": lambda: Custom(6, momentum=None),
    "of DETR": lambda: DetrFrozen(6),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_every_kind_of_batchnorm_has_the_figures_of_its_definition(kind: str) -> None:
    layer = filled(KNOWN[kind]())
    model = around(layer)
    found = audited(model)
    assert_figures(found, model, layer, getattr(layer, "eps", 1e-5))
    assert found.kind == type(layer).__name__
    assert found.affine == (getattr(layer, "weight", None) is not None)
    assert found.momentum == getattr(layer, "momentum", None)
    assert found.frozen == (
        kind in ("torchvision FrozenBatchNorm2d", "custom without momentum", "of DETR")
    )
    assert (found.discrepancy is None) == found.frozen


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(5), (40, 5)),
        (nn.BatchNorm1d(5), (40, 5, 7)),
        (nn.BatchNorm3d(5), (40, 5, 3, 4, 2)),
        (nn.SyncBatchNorm(5), (40, 5)),
    ],
)
def test_vectors_sequences_and_volumes_are_measured(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    model, x = nn.Sequential(filled(layer)), torch.randn(shape).exp()
    found = measure_alone(model, list(x.split(8))).layer("0")
    assert found.total_shift is not None
    assert found.total_shift.plain == pytest.approx(shift_of(x, layer, 1e-5), rel=1e-5)


def test_frozen_layers_keep_their_statistics_in_the_mini_batch_condition() -> None:
    network = measure_alone(around(filled(torchvision.ops.FrozenBatchNorm2d(6))), dataset()).network
    assert network is not None
    assert not network.kl


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 1e-6, 1e-12])
def test_the_eps_of_a_layer_that_does_not_tell_is_found_from_its_output(eps: float) -> None:
    layer = filled(DetrFrozen(6, eps))
    layer.running_var.mul_(1e-3)
    found = audited(around(layer))
    assert (found.eps, found.eps_source) == (eps, "probed")


def test_an_eps_held_in_a_tensor_is_read() -> None:
    model = around(filled(nn.BatchNorm2d(6)))
    model[1].eps = torch.tensor(1e-5)  # type: ignore[index]
    assert audited(model).eps == pytest.approx(1e-5)


def test_a_custom_layer_of_channels_last_inputs_is_measured_along_its_own_axis() -> None:
    layer = filled(Custom(6, axis=3))
    model = around(ChannelsLast(layer))
    found = audited(model, "1.layer")
    assert_figures(found, model, layer, 1e-3)
    assert found.discrepancy is not None


@pytest.mark.parametrize("channels", [5, 6], ids=["5 channels on 6x6", "6 channels on 6x6"])
@pytest.mark.parametrize("axes", ["NHWC"])
def test_a_subclass_of_batchnorm_for_channels_last_is_measured_along_its_own_axis(
    channels: int, axes: str
) -> None:
    class OfNHWC(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    layer = filled(OfNHWC(channels))
    model = around(ChannelsLast(layer), channels)
    assert_figures(audited(model, "1.layer"), model, layer, 1e-5)


class Bent(Custom):
    """Not affine in its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class OfTheBatch(Custom):
    """Has running statistics and normalises by the batch all the same."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True)


class Idle(Custom):
    """Has running statistics and does nothing with them."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


@pytest.mark.parametrize("kind", [Bent, OfTheBatch, Idle])
def test_a_layer_that_computes_something_else_is_unverified_and_has_no_figures(
    kind: type[Custom],
) -> None:
    audit = measure_alone(around(filled(kind(6))), dataset())
    layer = audit.layer("1")
    assert layer.status == "unverified"
    assert layer.note is not None
    assert layer.total_shift is None
    assert layer.discrepancy is None
    assert audit.verdict is not None
    assert audit.verdict.level == "nothing-to-audit"


def test_the_gamma_of_a_custom_layer_is_what_it_multiplies_by() -> None:
    layer = filled(Custom(6, factor=1.5))
    audit = measure_alone(around(layer), dataset())
    assert audit.channels is not None
    assert audit.channels.layer("1")["gamma"] == pytest.approx(
        1.5 * layer.weight.detach().numpy(), rel=1e-4
    )


@pytest.mark.parametrize("kind", [lambda: Custom(6), lambda: DetrFrozen(6)], ids=["custom", "DETR"])
def test_a_custom_layer_is_verified_although_a_channel_is_constant(
    kind: Callable[[], nn.Module],
) -> None:
    """A pruned convolution before it: the channel shows neither slope nor intercept."""
    layer = filled(kind())
    model = around(layer)
    nn.init.zeros_(model[0].weight[2])  # type: ignore[index]
    found = audited(model)
    assert_figures(found, model, layer, getattr(layer, "eps", 1e-5))


def test_a_custom_layer_is_verified_by_a_single_row() -> None:
    class OfVectors(Custom):
        def forward(self, x: Tensor) -> Tensor:
            y = (x - self.running_mean) * (self.running_var + self.eps).rsqrt()
            return y * self.weight + self.bias

    model, x = nn.Sequential(filled(OfVectors(5))), torch.randn(40, 5).exp()
    assert measure_alone(model, list(x.split(1))).layer("0").status == "audited"


def test_a_subclass_with_an_activation_inside_is_measured_without_being_verified() -> None:
    class Activated(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    layer = filled(Activated(6))
    model = around(layer)
    found = audited(model)
    assert_figures(found, model, layer, 1e-5)
    assert found.output_shift is not None


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1)])
def test_a_custom_layer_with_a_weight_shaped_for_broadcasting_is_measured(
    shape: tuple[int, ...],
) -> None:
    class Broadcasting(Custom):
        def __init__(self) -> None:
            super().__init__(6)
            self.weight = nn.Parameter(torch.ones(shape))
            self.bias = nn.Parameter(torch.zeros(shape))

        def forward(self, x: Tensor) -> Tensor:
            m, v = (b.view(-1, 1, 1) for b in (self.running_mean, self.running_var))
            return (x - m) * (v + self.eps).rsqrt() * self.weight + self.bias

    layer = filled(Broadcasting())
    model = around(layer)
    found = audited(model)
    assert_figures(found, model, layer, 1e-3)
    assert found.output_shift is not None


def test_instance_norm_is_listed_and_not_audited() -> None:
    model = around(nn.Sequential(nn.BatchNorm2d(6), nn.InstanceNorm2d(6, track_running_stats=True)))
    layer = audited(model, "1.1")
    assert (layer.status, layer.total_shift) == ("not-audited", None)
    assert audited(model, "1.0").status == "audited"


def test_a_layer_without_running_statistics_is_batch_dependent() -> None:
    model = around(nn.Sequential(nn.BatchNorm2d(6), nn.BatchNorm2d(6, track_running_stats=False)))
    layer = audited(model, "1.1")
    assert (layer.status, layer.total_shift, layer.channels) == ("batch-dependent", None, 6)


def test_statistics_count_although_tracking_was_switched_off_later() -> None:
    layer = filled(nn.BatchNorm2d(6))
    layer.track_running_stats = False
    model = around(layer)
    assert_figures(audited(model), model, layer, 1e-5)


def test_a_layer_that_the_forward_never_reaches_is_listed() -> None:
    model = around(nn.BatchNorm2d(6))
    model[2].spare = nn.BatchNorm2d(9)
    layer = audited(model, "2.spare")
    assert (layer.status, layer.channels, layer.calls) == ("never-called", 9, 0)


def test_a_layer_called_twice_pools_its_calls_and_tells_of_each() -> None:
    layer = filled(nn.BatchNorm2d(6))
    twice = CalledBy(layer, lambda bn, x: bn(x) + bn(x * 3 + 1))
    model = around(twice)
    found = audited(model, "1.layer")
    x = model[0](images())
    assert found.calls_per_forward == 2
    assert [site.total_shift for site in found.call_sites] == pytest.approx(
        [shift_of(x, layer, 1e-5), shift_of(x * 3 + 1, layer, 1e-5)], rel=1e-5
    )
    assert found.total_shift is not None
    assert found.total_shift.plain == pytest.approx(
        shift_of(torch.cat([x, x * 3 + 1]), layer, 1e-5), rel=1e-5
    )
    assert found.count == 2 * 64 * 36


def test_a_layer_under_two_names_appears_once_with_its_alias() -> None:
    layer = filled(nn.BatchNorm2d(6))
    audit = measure_alone(around(nn.Sequential(layer, layer)), dataset())
    assert [item.name for item in audit.layers] == ["1.0"]
    assert audit.layers[0].aliases == ("1.1",)
    assert audit.layer("1.1").calls_per_forward == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda bn, x: bn(input=x),
        lambda bn, x: bn.forward(x),
        lambda bn, x: bn.forward(input=x),
        lambda bn, x: nn.Module.__call__(bn, x),
    ],
    ids=["keyword", "forward", "forward with keyword", "unbound"],
)
def test_a_layer_is_seen_however_it_is_called(call: Callable[[nn.Module, Tensor], Tensor]) -> None:
    layer = filled(nn.BatchNorm2d(6))
    model = around(CalledBy(layer, call))
    assert_figures(audited(model, "1.layer"), model, layer, 1e-5)


def test_an_empty_input_is_counted_and_does_no_harm() -> None:
    layer = filled(nn.BatchNorm2d(6))
    model = around(CalledBy(layer, lambda bn, x: (bn(x[:0]), x)[1]))
    found = audited(model, "1.layer")
    assert (found.status, found.empty_calls, found.calls) == ("empty-input", 2, 2)
    assert found.total_shift is None
    sometimes = around(CalledBy(layer, lambda bn, x: (bn(x[:0]), bn(x))[1]))
    found = audited(sometimes, "1.layer")
    assert found.status == "audited"
    assert found.empty_calls == 2
    assert_figures(found, sometimes, layer, 1e-5)


def test_rows_need_not_be_samples() -> None:
    """N·T rows of a video in one BatchNorm, cut back to samples by the head."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = filled(nn.BatchNorm2d(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean((1, 3, 4))

    x = images(120).unflatten(0, (40, 3))
    audit = measure_alone(Frames(), list(x.split(8)))
    layer = audit.layer("bn")
    assert layer.total_shift is not None
    assert layer.total_shift.plain == pytest.approx(
        shift_of(x.flatten(0, 1), Frames().bn, 1e-5), rel=1e-5
    )
    assert layer.count == 120 * 64
    assert layer.discrepancy_batches == 5


def test_fewer_rows_than_samples_are_measured_too() -> None:
    layer = filled(nn.BatchNorm1d(3))

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(x.mean((2, 3)).unflatten(0, (-1, 4)).mean(1))

    found = measure_alone(Pooled(), list(images(64).split(16))).layer("bn")
    x = images(64).mean((2, 3)).unflatten(0, (-1, 4)).mean(1)
    assert found.total_shift is not None
    assert found.total_shift.plain == pytest.approx(shift_of(x, layer, 1e-5), rel=1e-5)


def test_a_lazy_layer_that_has_seen_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match=r"layer 1 .*LazyBatchNorm2d"):
        measure_alone(around(nn.LazyBatchNorm2d()), dataset())


def test_a_lazy_layer_that_is_no_batchnorm_is_refused_and_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyConv2d(6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ModelError, match="Lazy"):
        measure_alone(model, dataset())
    assert type(model[0]) is nn.LazyConv2d


def test_a_materialised_lazy_layer_is_measured() -> None:
    model = around(nn.LazyBatchNorm2d())
    model(images(8))
    assert audited(model).kind == "BatchNorm2d"


def test_a_model_without_batchnorm_is_nothing_to_audit() -> None:
    audit = measure_alone(around(nn.GroupNorm(2, 6)), dataset())
    assert audit.verdict is not None
    assert audit.verdict.level == "nothing-to-audit"
    assert audit.layers == ()


def test_a_model_whose_batchnorm_is_never_reached_is_an_error() -> None:
    model = around(CalledBy(nn.BatchNorm2d(6), lambda bn, x: x))
    with pytest.raises(ModelError, match=r"1\.layer"):
        measure_alone(model, dataset())


def test_activations_that_are_not_finite_name_the_first_layer_and_the_batch() -> None:
    layers = nn.Sequential(filled(nn.BatchNorm2d(6)), nn.BatchNorm2d(6), nn.BatchNorm2d(6))
    x = images(96)
    x[70, 1, 2, 3] = float("nan")
    with pytest.raises(NonFiniteError) as caught:
        measure_alone(around(layers), list(x.split(32)))
    assert (caught.value.layer, caught.value.batch) == ("1.0", 2)


def test_a_layer_that_makes_infinities_is_not_blamed_on_the_layer_before_it() -> None:
    layers = nn.Sequential(
        nn.BatchNorm2d(6), CalledBy(nn.Identity(), lambda _, x: x / 0), nn.BatchNorm2d(6)
    )
    with pytest.raises(NonFiniteError) as caught:
        measure_alone(around(layers), dataset())
    assert (caught.value.layer, caught.value.batch) == ("1.2", 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_precisions_are_measured(dtype: torch.dtype) -> None:
    layer = filled(nn.BatchNorm2d(6))
    model = around(layer).to(dtype)
    audit = measure_alone(model, [images().to(dtype)])
    found = audit.layer("1")
    name = str(dtype).removeprefix("torch.")
    assert (audit.dtype, found.dtype) == (name, name)
    assert found.total_shift is not None
    expected = shift_of(model[0](images().to(dtype)), layer, 1e-5)
    assert found.total_shift.plain == pytest.approx(expected, rel=1e-5)


def test_gradients_switched_on_inside_a_model_do_no_harm() -> None:
    class Switching(nn.Module):
        def __init__(self, on: bool) -> None:
            super().__init__()
            self.net, self.on = around(filled(nn.BatchNorm2d(6))), on

        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(self.on):
                return self.net(x)

    plain, switched = (measure_alone(Switching(on), dataset()) for on in (False, True))
    assert untimed(switched) == untimed(plain)


def test_inference_mode_in_a_part_of_a_model_does_no_harm() -> None:
    class Switching(nn.Module):
        def __init__(self, on: bool) -> None:
            super().__init__()
            self.net = around(nn.Sequential(filled(nn.BatchNorm2d(6)), nn.ReLU()))
            self.bn, self.on = filled(nn.BatchNorm1d(4)), on

        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode() if self.on else nullcontext():
                x = self.net(x)
            return self.bn(x.clone())

    plain, switched = (measure_alone(Switching(on), dataset()) for on in (False, True))
    assert untimed(switched) == untimed(plain)


def test_a_forward_in_another_thread_is_measured() -> None:
    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = around(filled(nn.BatchNorm2d(6)))

        def forward(self, x: Tensor) -> Tensor:
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(self.net, x).result()

    threaded = measure_alone(Threaded(), dataset())
    plain = measure_alone(Threaded().net, dataset())
    assert threaded.layers[0].total_shift == plain.layers[0].total_shift
    assert threaded.network == plain.network


def test_layers_are_found_in_registration_order_each_once() -> None:
    bn = nn.BatchNorm1d(3)
    model = nn.ModuleDict({"b": nn.BatchNorm2d(2), "a": bn, "c": nn.ModuleList([bn, nn.ReLU()])})
    assert [(layer.name, layer.aliases) for layer in find_layers(model)] == [
        ("b", ()),
        ("a", ("c.0",)),
    ]


def test_a_model_that_is_one_layer_is_named_after_its_class() -> None:
    audit: Any = measure_alone(filled(nn.BatchNorm2d(3)), [images()])
    assert [layer.name for layer in audit.layers] == ["BatchNorm2d"]
    assert audit.layers[0].status == "audited"
