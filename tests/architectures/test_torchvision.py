"""Every torchvision model with BatchNorm, from random weights, against counts and moments that do
not come from bnaudit.

A spread of families runs by default, all the others with `-m slow` or `-m "slow or not slow"`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from alone import measure_alone
from builders import Case, batchnorm_names, builders_with_batchnorm, case_of, needs_batchnorm
from oracles import Calls, count_calls, naive_moments
from torch import nn

import bnaudit

SPREAD = {
    "efficientnet_b0",
    "googlenet",
    "quantized_shufflenet_v2_x0_5",
    "resnet18",
}

AUXILIARY_HEADS = {
    "googlenet": ["aux1.conv.bn", "aux2.conv.bn"],
    "quantized_googlenet": ["aux1.conv.bn", "aux2.conv.bn"],
    "inception_v3": ["AuxLogits.conv0.bn", "AuxLogits.conv1.bn"],
    "quantized_inception_v3": ["AuxLogits.conv0.bn", "AuxLogits.conv1.bn"],
}
"""The layers that only a forward in training mode reaches."""

TOLERANCE = 1e-5
"""Of the mean, in standard deviations; of the variance, relative."""

SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
"""Activations fade to 1e-27 in an SSDlite or EfficientNet with random weights, and the square of a
float32 deviation has no more digits than this. Every eps is 30 orders of magnitude larger."""


@pytest.fixture(autouse=True)
def _one_model_in_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("slow"):  # those that run by default are small
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """On inputs this small, threads mostly wait: many times slower on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SPREAD else pytest.mark.slow)
        for name in torchvision.models.list_models()
    ],
)
def test_every_call_of_every_layer_is_measured_as_float64_has_it(name: str) -> None:
    needs_batchnorm(name)
    case = case_of(name)
    model, batches = case.model(), case.batches()

    audit = bnaudit.measure(model, batches, forward=case.forward)

    _has_every_layer_and_call(audit, model, batches, case)
    _has_float64_moments(audit, model, batches, case)
    never_called = [layer.name for layer in audit.layers if layer.status == "never-called"]
    assert never_called == AUXILIARY_HEADS.get(name, [])
    assert len(audit.audited) == len(audit.layers) - len(never_called)


@pytest.mark.parametrize(
    ("thresholds", "status", "empty_calls"),
    [
        pytest.param((1.0, 1.0, 1.0), "empty-input", 3, id="always", marks=pytest.mark.slow),
        pytest.param((0.0, 1.0, 0.0), "audited", 1, id="once"),
    ],
)
def test_calls_with_an_empty_input_are_counted_apart(
    thresholds: Sequence[float], status: str, empty_calls: int
) -> None:
    """A Mask R-CNN that detects nothing in a batch gives its mask head no regions."""

    def forward(model: nn.Module, batch: Any) -> Any:
        images, model.roi_heads.score_thresh = batch
        return model(images)

    base = case_of("maskrcnn_resnet50_fpn_v2")
    case = Case(base.name, base.shape, base.args, forward=forward)
    model = case.model()
    batches = [(list(images), t) for images, t in zip(case.batches(), thresholds, strict=True)]

    audit = measure_alone(model, batches, forward=forward)

    _has_every_layer_and_call(audit, model, batches, case)
    _has_float64_moments(audit, model, batches, case)
    for layer in audit.layers:
        in_mask_head = layer.name.startswith("roi_heads.mask_head.")
        assert layer.status == (status if in_mask_head else "audited"), layer.name
        assert layer.empty_calls == (empty_calls if in_mask_head else 0), layer.name


def _has_every_layer_and_call(
    audit: bnaudit.Audit, model: nn.Module, batches: Sequence[Any], case: Case
) -> None:
    assert [layer.name for layer in audit.layers] == batchnorm_names(model)
    measured = Calls(
        with_values=sum(layer.calls - layer.empty_calls for layer in audit.layers),
        empty=sum(layer.empty_calls for layer in audit.layers),
    )
    assert measured == count_calls(model, batches, case.forward)


def _has_float64_moments(
    audit: bnaudit.Audit, model: nn.Module, batches: Sequence[Any], case: Case
) -> None:
    assert audit.channels is not None
    names = [layer.name for layer in audit.audited]
    assert audit.channels.names.tolist() == names
    for name, (mean, var) in naive_moments(model, batches, case.forward, names).items():
        channels = audit.channels.layer(name)
        in_deviations = np.abs(channels["expected_mean"] - mean) <= TOLERANCE * np.sqrt(var)
        assert in_deviations.all(), name
        np.testing.assert_allclose(
            channels["expected_var"], var, rtol=TOLERANCE, atol=SMALLEST, err_msg=name
        )


@pytest.mark.slow
@pytest.mark.skipif(
    not torchvision.__version__.startswith("0.29."), reason="the number is that of torchvision 0.29"
)
def test_ninety_two_builders_of_torchvision_0_29_contain_batchnorm() -> None:
    assert len(builders_with_batchnorm()) == 92
