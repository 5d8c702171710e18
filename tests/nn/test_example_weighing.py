"""Example weighing: at inference each example counts into the statistics, in training nothing."""

import numpy as np
import pytest
import torch
from references import assert_same_as_reference, example_weighing, inputs, random_like
from torch import nn

from bnaudit import nn as bnn

KINDS = [
    (bnn.ExampleWeighingBatchNorm1d, nn.BatchNorm1d, (5, 4)),
    (bnn.ExampleWeighingBatchNorm1d, nn.BatchNorm1d, (5, 4, 7)),
    (bnn.ExampleWeighingBatchNorm2d, nn.BatchNorm2d, (5, 4, 3, 5)),
    (bnn.ExampleWeighingBatchNorm3d, nn.BatchNorm3d, (5, 4, 2, 3, 2)),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_inference_mixes_the_examples_moments_into_the_estimates(dtype, tolerance):
    for kind, _, shape in KINDS:
        for alpha in (0.0, 0.1, 0.5, 0.9):
            layer = random_like(kind(4, alpha, dtype=dtype)).eval()
            mean, var = layer.running_mean, layer.running_var
            assert_same_as_reference(
                layer,
                lambda x, gamma, beta, m=mean, v=var, a=alpha: example_weighing(
                    x, gamma, beta, m, v, a
                ),
                inputs(shape, dtype),
                tolerance,
            )


def test_a_weight_of_zero_and_training_are_batchnorm_bit_for_bit():
    for kind, plain, shape in KINDS:
        batch_norm = random_like(plain(4))
        layers = {alpha: kind(4, alpha) for alpha in (0.0, 0.3)}
        x = inputs(shape, torch.float32)
        for layer in layers.values():
            layer.load_state_dict(batch_norm.state_dict())
            assert torch.equal(layer(x), random_like(plain(4))(x))
        batch_norm(x)
        assert torch.equal(layers[0.0].eval()(x), batch_norm.eval()(x))
        for name, expected in batch_norm.state_dict().items():
            assert torch.equal(layers[0.3].state_dict()[name], expected)


def test_a_weight_of_one_is_instancenorm():
    layer = bnn.ExampleWeighingBatchNorm2d(4, 1.0).eval()
    x = inputs((3, 4, 5, 5), torch.float32)
    expected = nn.functional.instance_norm(x)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_the_mixed_variance_is_stable_where_the_mean_is_large():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2, 50)) + 1e4
    estimate = np.array([1e4 + 0.5, 1e4 - 2.0]), np.array([1.3, 0.4])
    a = 0.3
    mean_i, var_i = values.mean(2), values.var(2)
    m = a * mean_i + (1 - a) * estimate[0]
    v = (a * (var_i + (mean_i - m) ** 2)) + (1 - a) * (estimate[1] + (estimate[0] - m) ** 2)
    mean, var = bnn.example_weighed(
        *(torch.from_numpy(t).float() for t in (mean_i, var_i, *estimate)), a
    )
    np.testing.assert_allclose(mean.numpy(), m, rtol=1e-6)
    np.testing.assert_allclose(var.numpy(), v, rtol=2e-3)  # 1e-3 is the step of float32 at 1e4


def test_an_output_does_not_depend_on_the_rest_of_the_batch():
    layer = random_like(bnn.ExampleWeighingBatchNorm2d(4, 0.4, dtype=torch.float64)).eval()
    x = inputs((6, 4, 3, 3))
    torch.testing.assert_close(layer(x)[2:3], layer(x[2:3]), rtol=0, atol=1e-14)


def test_the_weight_can_be_changed_and_is_checked():
    layer = random_like(bnn.ExampleWeighingBatchNorm2d(4, 0.2)).eval()
    x = inputs((2, 4, 3, 3), torch.float32)
    before = layer(x)
    layer.alpha = 0.6
    assert not torch.equal(layer(x), before)
    assert "alpha=0.6" in repr(layer)
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got 1.5"):
        layer.alpha = 1.5
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got -0.1"):
        bnn.ExampleWeighingBatchNorm1d(3, -0.1)


def test_without_running_statistics_there_is_nothing_to_mix_with():
    layer = bnn.ExampleWeighingBatchNorm2d(4, 0.5, track_running_stats=False).eval()
    x = inputs((3, 4, 3, 3), torch.float32)
    assert torch.equal(layer(x), nn.BatchNorm2d(4, track_running_stats=False).eval()(x))


def test_without_gamma_and_beta_the_output_is_normalised_only():
    layer = bnn.ExampleWeighingBatchNorm2d(4, 0.5, affine=False, dtype=torch.float64).eval()
    x = inputs((3, 4, 3, 3))
    one, zero = torch.ones(4), torch.zeros(4)
    torch.testing.assert_close(layer(x), example_weighing(x, one, zero, zero, one, 0.5))


def test_an_empty_batch_passes():
    layer = bnn.ExampleWeighingBatchNorm2d(4, 0.5).eval()
    assert layer(torch.zeros(0, 4, 2, 2)).shape == (0, 4, 2, 2)
