"""After measure the model, its gradients and every generator are bit for bit as before."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import dataset, filled, images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from untimed import untimed

import bnaudit
from bnaudit.errors import ModelError, NonFiniteError


class Net(nn.Module):
    """Everything that a run could disturb: modes, hooks, tied layers, half-frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3)
        self.bn = filled(nn.BatchNorm2d(6, momentum=0.3))
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3), filled(nn.SyncBatchNorm(6)), nn.Dropout(0.5))
        self.shared = self.bn
        self.head = nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scratch", torch.full((3,), float("nan")), persistent=False)
        self.during: Callable[[Net, Tensor], None] = lambda net, x: None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = torch.relu(self.shared(self.bn(self.conv(x))))
        self.during(self, x)
        return self.head(self.deep(x).mean((2, 3)))


def hook(*_: Any) -> None:
    """A hook of the user's own."""


def used_model() -> Net:
    """In the middle of training: gradients, mixed modes, a hook and a patched forward."""
    model = Net().train()
    model.deep[1].eval()
    model.conv.weight.requires_grad_(False)
    model(images(8)).square().sum().backward()
    model.bn.register_forward_hook(hook)
    model.deep[0].register_forward_pre_hook(hook)
    own = model.deep[1].forward
    model.deep[1].forward = lambda x: own(x)  # somebody else's patch
    return model


def tensor_state(tensor: Tensor) -> tuple[Any, ...]:
    """Identity, memory and bits."""
    bits = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return (
        *(id(tensor), tensor.data_ptr(), tuple(tensor.shape), tensor.stride()),
        *(tensor.dtype, tensor.device, tensor.requires_grad, tensor.is_inference(), bits),
    )


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that can be seen of a model from outside."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        plain = {k: v for k, v in module.__dict__.items() if not k.startswith("_")}
        hooks = {k: dict(v) for k, v in module.__dict__.items() if "_hooks" in k and v is not None}
        state[name] = (id(module), type(module), plain, hooks, list(module._modules.items()))
        for kind, tensors in (("p", module._parameters), ("b", module._buffers)):
            for key, tensor in tensors.items():
                state[f"{kind} {name}.{key}"] = None if tensor is None else tensor_state(tensor)
                if tensor is not None and tensor.grad is not None:
                    state[f"grad {name}.{key}"] = tensor_state(tensor.grad)
    return state


def generators() -> tuple[Any, ...]:
    """The states of Python's, NumPy's and torch's generators."""
    numpy_state = np.random.get_state()
    return (
        random.getstate(),
        (numpy_state[0], numpy_state[1].tobytes(), *numpy_state[2:]),
        torch.get_rng_state().numpy().tobytes(),
    )


def modes() -> tuple[Any, ...]:
    """PyTorch's own global switches."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
    )


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what differs."""
    return [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]


def rolls_dice(net: Net, x: Tensor) -> None:
    random.random()
    np.random.rand()
    torch.rand(1)


def raises(net: Net, x: Tensor) -> None:
    rolls_dice(net, x)
    net.bn.running_mean.add_(1.0)
    raise RuntimeError("a model of many faults")


def interrupted(net: Net, x: Tensor) -> None:
    raise KeyboardInterrupt


def overflows(net: Net, x: Tensor) -> None:
    x.fill_(float("inf"))


def stays_in_train_mode(net: Net, x: Tensor) -> None:
    net.train()


def rebinds_a_buffer(net: Net, x: Tensor) -> None:
    net.scratch = torch.ones(5)


ENDINGS: dict[str, tuple[Callable[[Net, Tensor], None], type[BaseException] | None]] = {
    "all well": (rolls_dice, None),
    "an exception in the model": (raises, ModelError),
    "Ctrl-C in the model": (interrupted, KeyboardInterrupt),
    "activations that are not finite": (overflows, NonFiniteError),
    "a model that switches its mode": (stays_in_train_mode, None),
    "a buffer bound anew": (rebinds_a_buffer, None),
}


def measure_to_its_end(model: Net, ending: str, **options: Any) -> None:
    during, error = ENDINGS[ending]
    model.during = during
    if error is None:
        bnaudit.measure(model, dataset(), **options)
    else:
        with pytest.raises(error):
            bnaudit.measure(model, dataset(), **options)


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        pytest.param(options, ending, marks=marks, id=f"{dtype}-{ending}")
        for dtype, options, marks in (
            ("float32", {}, ()),
            ("bf16", {"dtype": "bf16"}, pytest.mark.slow),
        )
        for ending in ENDINGS
    ],
)
def test_the_model_is_bit_for_bit_as_before(ending: str, options: dict[str, Any]) -> None:
    model = used_model()
    model.during = ENDINGS[ending][0]
    before, dice, switches = state_of(model), generators(), modes()
    measure_to_its_end(model, ending, **options)
    assert changed(before, state_of(model)) == []
    assert generators() == dice
    assert modes() == switches


@pytest.mark.parametrize("ending", ["all well", "an exception in the model"])
def test_parameters_and_buffers_keep_their_memory_when_run_in_channels_last(ending: str) -> None:
    model = used_model()
    model.zero_grad(set_to_none=True)
    model.during = ENDINGS[ending][0]
    before, dice = state_of(model), generators()
    measure_to_its_end(model, ending, channels_last=True)
    assert changed(before, state_of(model)) == []
    assert generators() == dice


def test_gradients_keep_their_memory_format_when_run_in_channels_last() -> None:
    model = used_model()
    before = state_of(model)
    bnaudit.measure(model, dataset(), channels_last=True)
    assert changed(before, state_of(model)) == []


@pytest.mark.parametrize("ending", ["all well", "an exception in the model", "Ctrl-C in the model"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"channels_last": True}, marks=pytest.mark.slow),
        {"dtype": "bf16"},
    ],
)
def test_training_goes_on_as_if_nothing_had_been_measured(
    ending: str, options: dict[str, Any]
) -> None:
    model = used_model()
    model.zero_grad(set_to_none=True)
    measured = copy.deepcopy(model)
    measured.deep[1].__dict__.pop("forward"), model.deep[1].__dict__.pop("forward")
    measure_to_its_end(measured, ending, **options)
    measured.during = model.during
    for net in (model, measured):
        torch.manual_seed(7)
        optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1, 0.9)
        for _ in range(3):
            optimiser.zero_grad()
            net(images(16)).square().sum().backward()
            optimiser.step()
    for (name, a), (_, b) in zip(
        model.state_dict().items(), measured.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_a_graph_built_before_is_differentiated_after() -> None:
    plain, measured = Net(), Net()
    gradients = []
    for model in (plain, measured):
        torch.manual_seed(1)
        loss = model(images(8)).square().sum()
        if model is measured:
            bnaudit.measure(model, dataset())
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_caller_in_inference_mode_or_with_gradients_off_gets_its_mode_back() -> None:
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            switches = modes()
            bnaudit.measure(Net(), dataset(32))
            assert modes() == switches


def test_measuring_twice_gives_the_same_audit() -> None:
    model = used_model()
    model.during = rolls_dice
    first = bnaudit.measure(model, dataset())
    random.seed(99)
    torch.manual_seed(99)
    assert untimed(bnaudit.measure(model, dataset())) == untimed(first)


def test_a_buffer_that_was_none_is_none_again() -> None:
    class Caching(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", None)

        def forward(self, x: Tensor) -> Tensor:
            if self.cache is None:
                self.cache = torch.ones(len(x))
            return super().forward(x)

    model = Caching()
    keys = list(model.state_dict())
    bnaudit.measure(model, dataset())
    assert model.cache is None
    assert list(model.state_dict()) == keys


def test_a_model_whose_train_method_does_more_than_set_a_flag_keeps_its_weights() -> None:
    class Merging(nn.Module):
        """As a LoRA layer: eval() merges the update into the weight, train() takes it out."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.bn = nn.Conv2d(3, 6, 3), filled(nn.BatchNorm2d(6))
            self.update, self.merged = nn.Parameter(torch.randn(6, 3, 3, 3)), False

        def train(self, mode: bool = True) -> Merging:
            if self.merged == mode:
                self.conv.weight.data += -self.update.data if mode else self.update.data
                self.merged = not mode
            return super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.conv.weight if self.merged else self.conv.weight + self.update
            return self.bn(nn.functional.conv2d(x, weight, self.conv.bias))

    model = Merging().train()
    before, merged = model.conv.weight.detach().clone(), model.merged
    bnaudit.measure(model, dataset())
    assert model.training
    assert model.merged == merged
    torch.testing.assert_close(model.conv.weight.detach(), before)


def test_the_callers_batches_are_not_changed() -> None:
    x = images(64)
    before = x.clone()
    bnaudit.measure(Net(), list(x.split(16)), channels_last=True)
    assert torch.equal(x, before)
    assert x.is_contiguous()


def test_batches_are_not_changed_by_a_model_that_works_in_place() -> None:
    class InPlace(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(0.5))

    x = images(64)
    before = x.clone()
    bnaudit.measure(InPlace(), list(x.split(16)))
    assert torch.equal(x, before)


def test_a_dataset_read_by_workers_leaves_the_generators_alone() -> None:
    model, data = Net(), dataset()  # both draw
    dice = generators()
    bnaudit.measure(model, data, workers=1)
    assert generators() == dice


def test_a_loader_of_ones_own_draws_from_its_own_generator() -> None:
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(dataset(), batch_size=16, shuffle=True, generator=generator)
    model = Net()
    dice = generators()
    bnaudit.measure(model, loader)
    assert generators() == dice


def test_autocast_runs_in_bfloat16_and_counts_in_float32() -> None:
    seen: set[torch.dtype] = set()
    model = Net()
    model.during = lambda net, x: seen.add(x.dtype)
    audit = bnaudit.measure(model, dataset(), dtype="bf16")
    plain = bnaudit.measure(Net(), dataset())
    assert seen == {torch.bfloat16}
    assert audit.dtype == "bfloat16"
    for a, b in zip(audit.audited, plain.audited, strict=True):
        assert a.total_shift is not None
        assert b.total_shift is not None
        assert a.total_shift.plain == pytest.approx(b.total_shift.plain, rel=0.02)
        assert a.total_shift.plain != b.total_shift.plain


@pytest.mark.gpu
def test_a_model_measured_on_a_gpu_is_back_on_the_cpu_with_its_gradients() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = used_model()
    before, dice, cuda = state_of(model), generators(), torch.cuda.get_rng_state()
    bnaudit.measure(model, dataset(), device="cuda")
    assert changed(before, state_of(model)) == []
    assert generators() == dice
    assert torch.equal(torch.cuda.get_rng_state(), cuda)


@pytest.mark.gpu
def test_a_gpu_gives_the_figures_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = Net()
    on_cpu, on_gpu = (bnaudit.measure(model, dataset(), device=d) for d in ("cpu", "cuda"))
    for a, b in zip(on_cpu.audited, on_gpu.audited, strict=True):
        assert a.total_shift is not None
        assert b.total_shift is not None
        assert b.total_shift.plain == pytest.approx(a.total_shift.plain, rel=1e-2)
        assert b.discrepancy == pytest.approx(a.discrepancy, rel=1e-2)


class KeepsFeatures(nn.Module):
    """Hooks fill a list; the end of the forward reads it and empties it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features: list[Tensor] = []
        self.calls = 0
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)) for _ in range(5))
        )
        for block in self.body:
            block.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: object, output: Tensor) -> None:
        self.features.append(output)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.body(x)
        one, two, three, four, five = self.features
        self.features.clear()
        return (one + two + three + four + five).mean((2, 3))


def test_a_forward_that_is_broken_off_leaves_nothing_in_the_model() -> None:
    model = KeepsFeatures().eval()
    x = torch.rand(32, 3, 8, 8)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.fill_(2.0)  # so that the preprocessing is looked into
        before = model(x)
        audit = bnaudit.measure(model, TensorDataset(x), attribute="none")
        assert audit.preprocessing is not None
        assert audit.preprocessing.shift > 0.1
        assert model.features == []
        assert torch.equal(model(x), before)
