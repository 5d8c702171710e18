"""All layers under autocast, torch.compile and channels_last, copied, pickled and on a GPU."""

import copy
import io
import pickle

import pytest
import torch
from references import inputs, random_like
from torch import nn

from bnaudit import nn as bnn

MAKE = {
    "ghost": lambda **options: bnn.GhostBatchNorm2d(4, 3, **options),
    "batch-group": lambda **options: bnn.BatchGroupNorm2d(4, 2, 3, **options),
    "batch-group of all examples": lambda **options: bnn.BatchGroupNorm2d(4, 2, **options),
    "example-weighing": lambda **options: bnn.ExampleWeighingBatchNorm2d(4, 0.3, **options),
}
X = inputs((8, 4, 5, 5), torch.float32)


def layers():
    return [(name, random_like(make())) for name, make in MAKE.items()]


def outcome(layer, forward, x) -> list:
    """Output, input gradient, γ's gradient, statistics: one training step, then the eval output."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = forward(x)
    (y.float() * X.to(y.device)).sum().backward()
    found = [y.detach(), x.grad, layer.weight.grad.clone(), *(b.clone() for b in layer.buffers())]
    layer.eval()
    return [*found, forward(x).detach()]


def same(found, expected, **tolerance) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_autocast_to_bfloat16_normalises_in_float32_and_gives_the_inputs_dtype():
    for name, layer in layers():
        conv = nn.Conv2d(4, 4, 1)
        network = nn.Sequential(conv, layer)
        for mode in (True, False):
            network.train(mode)
            with torch.autocast("cpu", torch.bfloat16):
                x = conv(X)
                y = network(X)
                assert (x.dtype, y.dtype) == (torch.bfloat16, torch.bfloat16), name
            exact = copy.deepcopy(layer)(x.float())
            torch.testing.assert_close(y.float(), exact, rtol=1.6e-2, atol=1e-2)
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            network(X).float().square().sum().backward()
        assert layer.weight.grad.dtype == torch.float32
        assert layer.running_mean.dtype == torch.float32


def test_a_model_in_bfloat16_runs_in_both_modes():
    for name, layer in layers():
        layer.to(torch.bfloat16)
        for mode in (True, False):
            assert layer.train(mode)(X.bfloat16()).dtype == torch.bfloat16, name


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "ghost")) for name in MAKE]
)
def test_compiled_layers_give_what_the_layers_give(name):
    layer = random_like(MAKE[name]())
    torch.compiler.reset()
    other = copy.deepcopy(layer)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    same(outcome(other, compiled, X), outcome(layer, layer, X))


@pytest.mark.slow
def test_compiled_layers_follow_the_size_of_the_batch():
    for _, layer in layers():
        torch.compiler.reset()
        compiled = torch.compile(copy.deepcopy(layer), backend="eager", dynamic=True)
        for size in (8, 7, 5, 2):
            torch.testing.assert_close(compiled(X[:size]), layer(X[:size]))


@pytest.mark.slow
def test_inductor_compiles_the_layers():
    for _, layer in layers():
        torch.compiler.reset()
        other = copy.deepcopy(layer)
        compiled = torch.compile(other, fullgraph=True)
        same(outcome(other, compiled, X), outcome(layer, layer, X), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_layers_are_exported_for_inference_at_any_batch_size():
    for _, layer in layers():
        layer.eval()
        size = torch.export.Dim("n", min=2)
        program = torch.export.export(layer, (X,), dynamic_shapes=({0: size},))
        torch.testing.assert_close(program.module()(X[:3]), layer(X[:3]))


def test_channels_last_gives_the_same_and_stays_channels_last():
    for name, layer in layers():
        other = copy.deepcopy(layer)
        last = X.to(memory_format=torch.channels_last)
        for mode in (True, False):
            y = other.train(mode)(last)
            torch.testing.assert_close(y, layer.train(mode)(X))
            assert y.is_contiguous(memory_format=torch.channels_last), (name, mode)
    volumes = inputs((6, 4, 2, 3, 2), torch.float32).to(memory_format=torch.channels_last_3d)
    y = bnn.GhostBatchNorm3d(4, 2)(volumes)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(y, bnn.GhostBatchNorm3d(4, 2)(volumes.contiguous()))


def test_inputs_that_are_not_contiguous_are_taken_as_they_are():
    strange = X.transpose(2, 3)[:, :, ::2]
    for _, layer in layers():
        other = copy.deepcopy(layer)
        torch.testing.assert_close(layer(strange), other(strange.contiguous()))


def test_copies_and_pickles_are_layers_of_their_own():
    for _, layer in layers():
        stored = io.BytesIO()
        torch.save(layer, stored)
        stored.seek(0)
        for other in (
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            torch.load(stored, weights_only=False),
        ):
            assert repr(other) == repr(layer)
            own = copy.deepcopy(layer)
            same(outcome(other, other, X), outcome(own, own, X))


def test_second_derivatives_exist():
    for _, layer in layers():
        for mode in (True, False):
            layer.double().train(mode)
            x = inputs((6, 4, 2, 2))
            assert torch.autograd.gradgradcheck(
                layer, x.requires_grad_(), nondet_tol=1e-10, check_undefined_grad=False
            )


def test_training_and_inference_alternate():
    for _, layer in layers():
        layer.eval()
        before = [b.clone() for b in layer.buffers()]
        inference = layer(X)
        same(list(layer.buffers()), before)
        layer.train()(X)
        assert int(layer.num_batches_tracked) == 1 + int(before[2])
        assert not torch.equal(layer.eval()(X), inference)


def test_a_module_can_be_made_on_meta_and_filled():
    for make in MAKE.values():
        layer = make(device="meta").to_empty(device="cpu")
        layer.load_state_dict(make().state_dict())
        layer(X)


@pytest.mark.gpu
def test_the_layers_give_the_same_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for _, layer in layers():
        other = copy.deepcopy(layer).cuda()
        found = [t.cpu() for t in outcome(other, other, X.cuda())]
        same(found, outcome(layer, layer, X), rtol=1e-4, atol=1e-4)
        with torch.autocast("cuda", torch.bfloat16):
            assert other.train()(X.cuda().bfloat16()).dtype == torch.bfloat16
