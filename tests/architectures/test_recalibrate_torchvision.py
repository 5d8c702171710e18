"""`exact` on torchvision's models, from random weights: every layer's statistics are those of its
inputs, to rounding.

A spread of families runs by default, all others with `-m slow` or `-m "slow or not slow"`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
import torchvision
from alone import recalibrate_alone
from builders import case_of, needs_batchnorm
from torch.nn.modules.batchnorm import _BatchNorm

SPREAD = {
    "densenet121",
    "googlenet",
    "mobilenet_v3_small",
    "r3d_18",
    "retinanet_resnet50_fpn",
    "shufflenet_v2_x1_0",
}
"""Concatenations, branches, squeeze and excitation, clips, a pyramid, shuffles."""

_GOOGLENET, _INCEPTION = (
    [f"aux{i}.conv.bn" for i in (1, 2)],
    [f"AuxLogits.conv{i}.bn" for i in (0, 1)],
)
KEPT = {
    "googlenet": _GOOGLENET,
    "quantized_googlenet": _GOOGLENET,
    "inception_v3": _INCEPTION,
    "quantized_inception_v3": _INCEPTION,
    "maskrcnn_resnet50_fpn_v2": [f"roi_heads.mask_head.{i}.1" for i in range(4)],
}
"""The layers of auxiliary heads, which only a forward in training mode reaches; and a mask head
that gets no region: with random weights and right statistics nothing is detected."""

BOUND = 1e-6
"""Largest ESM of a recalibrated layer on the calibration data."""


@pytest.fixture(autouse=True)
def _one_model_in_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("slow"):  # those that run by default are small
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
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
def test_exact_leaves_nothing_but_rounding_in_every_layer(name: str) -> None:
    needs_batchnorm(name)
    case = case_of(name)
    model = case.model()
    result = recalibrate_alone(model, case.batches(), forward=case.forward, task="other")
    report = result.report
    kept = {layer.name: layer.reason for layer in report.layers if not layer.changed}
    print(
        f"{name}: {report.method}, {len(report.changed)} layers, kept {len(kept)}, "
        f"{report.residual_before:.2g} -> {report.residual:.1e} at {report.residual_layer}",
        *report.notes,
        *report.batch_dependence,
    )
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    assert len(report.layers) == len(norms)
    assert report.method == "exact"
    assert list(kept) == KEPT.get(name, [])
    assert all(reason is not None for reason in kept.values())
    for layer in report.changed:
        assert layer.calibration_after is not None
        assert layer.calibration_after <= BOUND, layer.name
    assert report.residual is not None
    assert report.residual <= BOUND
    assert result.applied
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)
