"""Batch/Group Norm: groups of examples and groups of channels together."""

import pytest
import torch
from references import assert_same_as_reference, grouped, inputs, random_like
from torch import nn

from bnaudit import nn as bnn

KINDS = [
    (bnn.BatchGroupNorm1d, nn.BatchNorm1d, (9, 6)),
    (bnn.BatchGroupNorm1d, nn.BatchNorm1d, (9, 6, 5)),
    (bnn.BatchGroupNorm2d, nn.BatchNorm2d, (9, 6, 3, 4)),
    (bnn.BatchGroupNorm3d, nn.BatchNorm3d, (9, 6, 2, 3, 2)),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_training_normalises_groups_of_examples_and_channels_together(dtype, tolerance):
    for kind, _, shape in KINDS:
        for groups, examples in ((1, None), (2, None), (3, 2), (2, 4), (1, 1), (6, 3), (3, 100)):
            layer = random_like(kind(6, groups, examples, dtype=dtype))
            assert_same_as_reference(
                layer,
                lambda x, gamma, beta, g=groups, e=examples: grouped(x, gamma, beta, g, e),
                inputs(shape, dtype),
                tolerance,
            )


def _gradients(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * inputs(tuple(x.shape), x.dtype, seed=5)).sum().backward()
    return [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]


def test_one_channel_a_group_and_all_examples_together_are_batchnorm_bit_for_bit():
    for kind, plain, shape in KINDS:
        batch_norm = random_like(plain(6))
        layer = kind(6, groups=6)
        layer.load_state_dict(batch_norm.state_dict())
        x = inputs(shape, torch.float32)
        for found, expected in zip(_gradients(layer, x), _gradients(batch_norm, x), strict=True):
            assert torch.equal(found, expected)
        assert torch.equal(layer.eval()(x), batch_norm.eval()(x))
        for name, expected in batch_norm.state_dict().items():
            assert torch.equal(layer.state_dict()[name], expected)


def test_one_example_a_group_is_groupnorm():
    for kind, _, shape in KINDS:
        for groups in (1, 2, 3):
            group_norm = random_like(nn.GroupNorm(groups, 6, dtype=torch.float64))
            layer = kind(6, groups, 1, track_running_stats=False, dtype=torch.float64)
            layer.load_state_dict(group_norm.state_dict())
            x = inputs(shape)
            for found, expected in zip(
                _gradients(layer, x), _gradients(group_norm, x), strict=True
            ):
                torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(layer.eval()(x), group_norm.eval()(x))
            tracking = kind(6, groups, 1, dtype=torch.float64)
            tracking.load_state_dict(group_norm.state_dict(), strict=False)
            torch.testing.assert_close(tracking(x), group_norm(x))


def test_one_channel_a_group_and_a_few_examples_are_ghost_batchnorm():
    ghost, layer = bnn.GhostBatchNorm2d(6, 4), bnn.BatchGroupNorm2d(6, 6, 4)
    x = inputs((9, 6, 3, 3), torch.float32)
    assert torch.equal(ghost(x), layer(x))
    assert torch.equal(ghost.running_var, layer.running_var)


def test_the_running_statistics_pool_over_the_group_and_the_whole_batch():
    for kind, _, shape in KINDS:
        for examples in (None, 2, 4):
            layer = kind(6, 3, examples, momentum=0.25, dtype=torch.float64)
            x = inputs(shape)
            layer(x)
            values = x.numpy().reshape(shape[0], 3, -1).swapaxes(0, 1).reshape(3, -1)
            mean, var = 0.25 * values.mean(1), 0.75 + 0.25 * values.var(1, ddof=1)
            torch.testing.assert_close(layer.running_mean, torch.from_numpy(mean))
            torch.testing.assert_close(layer.running_var, torch.from_numpy(var))
            assert int(layer.num_batches_tracked) == 1


def test_inference_normalises_by_the_running_statistics_of_the_group_whatever_the_batch():
    layer = random_like(bnn.BatchGroupNorm2d(6, 3, 2, dtype=torch.float64)).eval()
    x = inputs((5, 6, 3, 3))
    mean, var = (
        t.numpy().repeat(2)[:, None, None] for t in (layer.running_mean, layer.running_var)
    )
    gamma, beta = (t.detach().numpy()[:, None, None] for t in (layer.weight, layer.bias))
    expected = (x.numpy() - mean) / (var + 1e-5) ** 0.5 * gamma + beta
    torch.testing.assert_close(layer(x).detach(), torch.from_numpy(expected))
    torch.testing.assert_close(layer(x[:1]), layer(x)[:1], rtol=0, atol=0)


def test_a_cumulative_average_is_over_all_batches():
    layer = bnn.BatchGroupNorm1d(4, 2, 3, momentum=None, dtype=torch.float64)
    batches = [inputs((6, 4), seed=seed) for seed in range(4)]
    for x in batches:
        layer(x)
    means = torch.stack([x.unflatten(1, (2, 2)).mean((0, 2)) for x in batches])
    torch.testing.assert_close(layer.running_mean, means.mean(0))


def test_an_empty_batch_passes_and_moves_no_statistics():
    layer = bnn.BatchGroupNorm2d(6, 2, 2)
    assert layer(torch.zeros(0, 6, 2, 2)).shape == (0, 6, 2, 2)
    assert torch.equal(layer.running_var, torch.ones(2))
    assert layer.eval()(torch.zeros(0, 6, 2, 2)).shape == (0, 6, 2, 2)


def test_one_example_of_one_position_can_be_normalised_over_its_channels():
    layer = bnn.BatchGroupNorm1d(6, 2, dtype=torch.float64)
    x = inputs((1, 6))
    torch.testing.assert_close(layer(x), nn.GroupNorm(2, 6, dtype=torch.float64)(x))


def test_wrong_groups_and_inputs_are_refused_in_one_line():
    with pytest.raises(ValueError, match="groups has to divide num_features, 6; got 4"):
        bnn.BatchGroupNorm2d(6, 4)
    with pytest.raises(ValueError, match="examples has to be at least 1 or None, got 0"):
        bnn.BatchGroupNorm2d(6, 3, 0)
    with pytest.raises(ValueError, match="more than 1 value"):
        bnn.BatchGroupNorm1d(6, 6, 1)(torch.zeros(4, 6))
    with pytest.raises(ValueError, match="expected 4D input"):
        bnn.BatchGroupNorm2d(6, 3)(torch.zeros(4, 6))
    with pytest.raises(ValueError, match="expected 6 channels"):
        bnn.BatchGroupNorm2d(6, 3)(torch.zeros(4, 12, 2, 2))


def test_a_checkpoint_older_than_the_counter_loads():
    layer = bnn.BatchGroupNorm2d(6, 3)
    state = {k: v for k, v in layer.state_dict().items() if k != "num_batches_tracked"}
    layer.load_state_dict(dict(state))
    assert int(layer.num_batches_tracked) == 0
