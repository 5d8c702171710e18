"""Parameter groups: every parameter once, and γ towards its target by any optimiser's own rule."""

import copy
import warnings

import pytest
import torch
from references import inputs
from torch import nn

from bnaudit import nn as bnn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = bnn.GhostBatchNorm2d(4, 4)
        self.group = nn.GroupNorm(2, 4)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.shared = nn.Sequential(self.bn)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.group(self.bn(self.plain(self.conv(x))).relu())
        return self.head(x.relu().mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.bn.weight.copy_(torch.tensor([0.3, 1.0, 1.7, -0.2]))
    return model


def groups(model, gamma_decay=0.1, gamma_target=1.0):
    return bnn.parameter_groups(
        model,
        weight_decay=0.02,
        gamma_decay=gamma_decay,
        beta_decay=0.03,
        gamma_target=gamma_target,
    )


def test_every_parameter_stands_in_one_group():
    model = net()
    found = {group["name"]: group for group in groups(model, gamma_target=0.0)}
    assert [id(p) for p in found["gamma"]["params"]] == [
        id(model.bn.weight),
        id(model.group.weight),
    ]
    assert [id(p) for p in found["beta"]["params"]] == [id(model.bn.bias), id(model.group.bias)]
    assert len(found["weights"]["params"]) == 4  # convolution and head, their biases with them
    assert [found[k]["weight_decay"] for k in ("weights", "gamma", "beta")] == [0.02, 0.1, 0.03]
    assert [g["name"] for g in groups(nn.Linear(2, 2))] == ["weights"]


def by_hand(optimizer_kind, options, steps, decay, target):
    """γ decayed by the formula: into the gradient, or apart from it for AdamW."""
    model = net()
    rest = [
        p for p in model.parameters() if p is not model.bn.weight and p is not model.group.weight
    ]
    gammas = [model.bn.weight, model.group.weight]
    optimizer = optimizer_kind(
        [{"params": rest, "weight_decay": 0.0}, {"params": gammas, "weight_decay": 0.0}], **options
    )
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, step).backward()
        with torch.no_grad():
            for gamma in gammas:
                if optimizer_kind is torch.optim.AdamW:
                    gamma -= options["lr"] * decay * (gamma - target)
                else:
                    gamma.grad += decay * (gamma - target)
        optimizer.step()
    return [gamma.detach() for gamma in gammas]


def loss(model, step):
    x = inputs((8, 3, 5, 5), torch.float32, seed=step)
    return nn.functional.cross_entropy(model(x), torch.arange(8) % 3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (torch.optim.Adam, {"lr": 0.01}),
        (torch.optim.AdamW, {"lr": 0.01}),
    ],
)
@pytest.mark.parametrize("target", [1.0, 0.5])
def test_gamma_decays_towards_its_target_by_the_optimisers_own_rule(kind, options, target):
    model = net()
    made = bnn.parameter_groups(
        model, weight_decay=0.0, gamma_decay=0.3, beta_decay=0.0, gamma_target=target
    )
    optimizer = kind(made, **options)
    bnn.decay_towards_target(optimizer)
    for step in range(5):
        optimizer.zero_grad()
        loss(model, step).backward()
        optimizer.step()
    expected = by_hand(kind, options, 5, 0.3, target)
    for found, wanted in zip((model.bn.weight, model.group.weight), expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=2e-5, atol=2e-5)


def test_decay_alone_takes_gamma_to_the_target_and_the_rest_to_zero():
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=1.0)
    bnn.decay_towards_target(optimizer)
    for _ in range(400):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    torch.testing.assert_close(model.bn.weight.detach(), torch.ones(4), rtol=0, atol=1e-6)
    assert model.bn.bias.abs().max() < 1e-4
    assert model.conv.weight.abs().max() < 1e-3


def test_without_a_gradient_gamma_stays_to_the_bit():
    model = net()
    before = model.bn.weight.detach().clone()
    optimizer = torch.optim.SGD(groups(model), lr=1.0)
    bnn.decay_towards_target(optimizer)
    optimizer.step()
    assert torch.equal(model.bn.weight, before)


def test_a_closure_sees_gamma_itself():
    for positional in (True, False):
        model, seen = net(), []
        before = model.bn.weight.detach().clone()
        optimizer = torch.optim.SGD(groups(model), lr=0.1)
        bnn.decay_towards_target(optimizer)

        def closure(model=model, seen=seen, optimizer=optimizer):
            seen.append(model.bn.weight.detach().clone())
            optimizer.zero_grad()
            value = loss(model, 0)
            value.backward()
            return value

        optimizer.step(closure) if positional else optimizer.step(closure=closure)
        assert torch.equal(seen[0], before)
        expected = by_hand(torch.optim.SGD, {"lr": 0.1}, 1, 0.1, 1.0)[0]
        torch.testing.assert_close(model.bn.weight.detach(), expected)


def test_the_optimisers_state_goes_into_a_checkpoint():
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=0.1, momentum=0.9)
    handle = bnn.decay_towards_target(optimizer)
    loss(model, 0).backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.02, 0.0, 0.03]
    again = torch.optim.SGD(groups(model), lr=0.5)
    again.load_state_dict(state)
    bnn.decay_towards_target(again)
    handle.remove()
    model.bn.weight.grad = torch.zeros(4)
    optimizer.step()  # the momentum alone
    assert optimizer.param_groups[1]["weight_decay"] == 0.0


class Descent(torch.optim.Optimizer):
    """Gradient descent, into which an error can break after γ has moved."""

    error: BaseException | None = None

    def __init__(self, groups, lr):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            if group["name"] == "beta" and self.error is not None:
                raise self.error
            for parameter in group["params"]:
                gradient = parameter.grad + group["weight_decay"] * parameter
                parameter -= group["lr"] * gradient


def decaying_to_one():
    model = net()
    optimizer = Descent(groups(model), lr=0.1)
    bnn.decay_towards_target(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model, optimizer


@pytest.mark.parametrize(
    "error", [RuntimeError("cuda"), TypeError("NoneType"), KeyboardInterrupt()]
)
def test_after_a_step_that_raises_gamma_is_what_it_was(error):
    def failing_closure():
        raise error

    for way in ("in the closure", "in the step"):
        model, optimizer = decaying_to_one()
        before = [model.bn.weight.detach().clone(), model.group.weight.detach().clone()]
        if way == "in the closure":
            with pytest.raises(type(error)):
                optimizer.step(failing_closure)
        else:
            optimizer.error = error
            with pytest.raises(type(error)):
                optimizer.step()
            optimizer.error = None
        assert torch.equal(model.bn.weight, before[0]), way
        assert torch.equal(model.group.weight, before[1]), way
        assert optimizer.param_groups[1]["weight_decay"] == 0.0
        optimizer.step()  # by gradients of 1, and by 0.1 · (γ − 1)
        after = before[0] - 0.1 * (1 + 0.1 * (before[0] - 1))
        torch.testing.assert_close(model.bn.weight.detach(), after)
    with pytest.raises(TypeError, match="closer"):
        optimizer.step(closer=None)
    torch.testing.assert_close(model.bn.weight.detach(), after)


class Twice(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


def test_an_optimiser_that_calls_its_parents_step_decays_once():
    torch.optim.SGD(groups(net()), lr=0.1)  # from here on PyTorch runs the hooks of both steps
    model = net()
    optimizer = Twice(groups(model), lr=0.1)
    bnn.decay_towards_target(optimizer)
    before = model.bn.weight.detach().clone()
    model.bn.weight.grad = torch.zeros(4)
    optimizer.step()
    torch.testing.assert_close(model.bn.weight.detach(), before - 0.01 * (before - 1))


def test_schedulers_made_before_and_afterwards_count_its_steps():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in ("before", "afterwards"):
            model = net()
            optimizer = torch.optim.SGD(groups(model), lr=0.1)
            if made == "before":
                schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            bnn.decay_towards_target(optimizer)
            if made == "afterwards":
                schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            before = model.bn.weight.detach().clone()
            model.bn.weight.grad = torch.zeros(4)
            optimizer.step()
            schedule.step()
            torch.testing.assert_close(model.bn.weight.detach(), before - 0.01 * (before - 1))


def test_what_is_registered_afterwards_sees_gamma_itself():
    model, optimizer = decaying_to_one()
    before, seen = model.bn.weight.detach().clone(), []
    optimizer.register_step_post_hook(lambda *_: seen.append(model.bn.weight.detach().clone()))
    optimizer.step()
    torch.testing.assert_close(seen[0], before - 0.1 * (1 + 0.1 * (before - 1)))


def test_it_is_set_up_once_until_it_is_removed():
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=0.1)
    first = bnn.decay_towards_target(optimizer)
    with pytest.raises(ValueError, match="decays towards its targets already"):
        bnn.decay_towards_target(optimizer)
    first.remove()
    bnn.decay_towards_target(optimizer)
    before = model.bn.weight.detach().clone()
    model.bn.weight.grad = torch.zeros(4)
    optimizer.step()
    torch.testing.assert_close(model.bn.weight.detach(), before - 0.01 * (before - 1))


def test_an_optimiser_without_a_target_is_refused():
    optimizer = torch.optim.SGD(groups(net(), gamma_target=0.0), lr=0.1)
    with pytest.raises(ValueError, match="no parameter group has a target"):
        bnn.decay_towards_target(optimizer)
