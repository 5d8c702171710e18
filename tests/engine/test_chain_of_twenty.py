"""PyTorch issue 100048: converged statistics whose outputs still differ in train and eval mode.

`running_var` is unbiased, the normalisation of training is biased: at batch 64 every layer shrinks
its output by √(63/64), and in a chain the factors multiply.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import bnaudit

BATCH, LAYERS = 64, 20


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Sequential, Tensor]:
    """Twenty BN layers whose statistics have converged on one batch."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, 2)
    chain = nn.Sequential(
        *(nn.BatchNorm1d(2, affine=False, momentum=0.01, eps=1e-12) for _ in range(LAYERS))
    )
    with torch.no_grad():
        for _ in range(2048):
            chain(x)
    return chain.eval(), x


def test_the_scale_part_grows_by_the_bias_of_the_variance_layer_after_layer(
    trained: tuple[nn.Sequential, Tensor],
) -> None:
    chain, x = trained
    audit = bnaudit.measure(chain, [x])
    assert len(audit.audited) == LAYERS
    for depth, layer in enumerate(audit.audited, start=1):
        assert layer.scale_part == pytest.approx(1 - (63 / 64) ** (depth / 2), abs=2e-6)
        assert layer.mean_part == pytest.approx(0, abs=1e-5)
    assert audit.audited[0].scale_part == pytest.approx(0.0078, abs=1e-4)
    assert audit.audited[-1].scale_part == pytest.approx(0.146, abs=1e-3)


def test_the_outputs_of_the_two_modes_differ_by_the_shift_of_the_last_layer(
    trained: tuple[nn.Sequential, Tensor],
) -> None:
    chain, x = trained
    audit = bnaudit.measure(chain, [x], task="other")
    deployed = chain(x)
    chain.train()
    trained_mode = chain(x)
    chain.eval()
    ratio = (deployed.norm() / trained_mode.norm()).item()
    assert ratio == pytest.approx((63 / 64) ** (LAYERS / 2), abs=1e-5)
    assert ratio == pytest.approx(0.854, abs=1e-3)
    assert audit.network is not None
    assert audit.network.relative_rms == pytest.approx(1 / ratio - 1, rel=1e-3)
    last = audit.audited[-1]
    assert last.total_shift is not None
    assert last.total_shift.plain == pytest.approx(1 - ratio, rel=1e-3)
    assert last.batch_noise == pytest.approx(0, abs=1e-4)  # one batch is all the data
