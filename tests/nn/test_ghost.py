"""Ghost Batch Norm: each ghost batch by itself in training, plain BatchNorm at inference."""

import numpy as np
import pytest
import torch
from references import assert_same_as_reference, grouped, inputs, random_like
from torch import nn

from bnaudit import nn as bnn

KINDS = [
    (bnn.GhostBatchNorm1d, nn.BatchNorm1d, (12, 4)),
    (bnn.GhostBatchNorm1d, nn.BatchNorm1d, (12, 4, 7)),
    (bnn.GhostBatchNorm2d, nn.BatchNorm2d, (12, 4, 3, 5)),
    (bnn.GhostBatchNorm3d, nn.BatchNorm3d, (12, 4, 2, 3, 2)),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_training_normalises_every_ghost_batch_by_itself(dtype, tolerance):
    for kind, _, shape in KINDS:
        for size in (2, 3, 4, 5, 12, 100):  # 5 leaves two examples over
            if size == 2 and len(shape) == 2 and dtype == torch.float32:
                continue  # two values become ±1 whatever they are: the gradient is all rounding
            layer = random_like(kind(4, size, dtype=dtype))
            assert_same_as_reference(
                layer,
                lambda x, gamma, beta, size=size: grouped(x, gamma, beta, 4, size),
                inputs(shape, dtype),
                tolerance,
            )


def test_the_last_ghost_batch_takes_what_is_left_over():
    layer = bnn.GhostBatchNorm1d(2, 3, dtype=torch.float64)
    x = inputs((7, 2))
    torch.testing.assert_close(layer(x)[:3], nn.BatchNorm1d(2, dtype=torch.float64)(x[:3]))
    torch.testing.assert_close(layer(x)[3:], nn.BatchNorm1d(2, dtype=torch.float64)(x[3:]))


def test_the_running_statistics_are_those_of_the_whole_batch_as_batchnorm_keeps_them():
    for momentum in (0.1, 0.7, None):
        for kind, plain, shape in KINDS:
            ghost = kind(4, 5, momentum=momentum, dtype=torch.float64)
            batch_norm = plain(4, momentum=momentum, dtype=torch.float64)
            for seed in range(3):
                x = inputs(shape, seed=seed)
                ghost(x)
                batch_norm(x)
            for name, expected in batch_norm.state_dict().items():
                torch.testing.assert_close(ghost.state_dict()[name], expected)


def test_a_ghost_of_the_whole_batch_is_batchnorm_bit_for_bit():
    for kind, plain, shape in KINDS:
        ghost, batch_norm = kind(4, 12), plain(4)
        x = inputs(shape, torch.float32)
        assert torch.equal(ghost(x), batch_norm(x))
        for name, expected in batch_norm.state_dict().items():
            assert torch.equal(ghost.state_dict()[name], expected)


def test_inference_is_batchnorm_bit_for_bit_and_the_state_dict_is_its_own():
    for kind, plain, shape in KINDS:
        batch_norm = random_like(plain(4)).eval()
        ghost = kind(4, 2).eval()
        ghost.load_state_dict(batch_norm.state_dict())
        x = inputs(shape, torch.float32)
        assert torch.equal(ghost(x), batch_norm(x))
        plain(4).load_state_dict(ghost.state_dict())
        assert isinstance(ghost, plain)


def test_without_running_statistics_inference_is_by_ghost_batches_too():
    layer = random_like(bnn.GhostBatchNorm2d(4, 3, track_running_stats=False)).eval()
    x = inputs((6, 4, 3, 3), torch.float32)
    expected = grouped(x, layer.weight, layer.bias, 4, 3)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_without_gamma_and_beta_the_output_is_normalised_only():
    layer = bnn.GhostBatchNorm2d(4, 3, affine=False)
    x = inputs((7, 4, 3, 3), torch.float32)
    expected = grouped(x, torch.ones(4), torch.zeros(4), 4, 3)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_an_empty_batch_passes_and_moves_no_statistics():
    layer = bnn.GhostBatchNorm2d(4, 3)
    assert layer(torch.zeros(0, 4, 2, 2)).shape == (0, 4, 2, 2)
    assert torch.equal(layer.running_mean, torch.zeros(4))
    assert torch.equal(layer.running_var, torch.ones(4))


def test_one_example_is_one_ghost_batch_and_a_single_value_is_refused():
    layer = bnn.GhostBatchNorm2d(4, 3)
    torch.testing.assert_close(
        layer(x := inputs((1, 4, 3, 3), torch.float32)), nn.BatchNorm2d(4)(x)
    )
    with pytest.raises(ValueError, match="more than 1 value"):
        bnn.GhostBatchNorm1d(4, 3)(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="more than 1 value"):
        bnn.GhostBatchNorm1d(4, 1)(torch.zeros(8, 4))
    with pytest.raises(ValueError, match="ghost_size has to be a whole number from 1 on, got 0"):
        bnn.GhostBatchNorm1d(4, 0)


def test_large_means_do_not_spoil_the_running_variance():
    x = (np.random.default_rng(0).normal(size=(64, 1, 6, 6)) + 1e3).astype(np.float32)
    layer = bnn.GhostBatchNorm2d(1, 8, momentum=1.0)
    layer(torch.from_numpy(x))
    expected = x.astype(np.float64).var(ddof=1)
    assert abs(float(layer.running_var) / expected - 1) < 1e-5
