"""Forwards in lockstep keep their own contexts; model and torch are as they were afterwards.

Every test runs between two looks at all that a forward could leave behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import random
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from alone import recalibrate_alone
from population_oracle import (
    as_one_batch,
    by_repeated_updates,
    by_repeated_updates_of_batches,
    conv,
    images,
    largest_difference,
    net,
    spoilt,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils.checkpoint import checkpoint

import bnaudit
from bnaudit.engine.conditions import OutOfMemoryError
from bnaudit.engine.lockstep import OutOfOrderError
from bnaudit.errors import ModelError, NonFiniteError

ROUNDING = 3e-6


def torch_state() -> dict[str, Any]:
    """Every switch of the thread, and the generators."""
    numpy_state = np.random.get_state()
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "function modes": tuple(_get_current_function_mode_stack()),
        "dispatch modes": tuple(_get_current_dispatch_mode_stack()),
        "stance": torch._dynamo.eval_frame._stance.stance,
        "python": random.getstate(),
        "numpy": (numpy_state[1].tobytes(), *numpy_state[2:]),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "warnings": list(warnings.filters),
        "threads": torch.get_num_threads(),
    }


def model_state(model: nn.Module) -> dict[str, Any]:
    """Tensors by identity, place and bits; flags, hooks and every plain attribute."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        public = {k: v for k, v in module.__dict__.items() if not k.startswith("_")}
        hooks = {k: dict(v) for k, v in module.__dict__.items() if "_hooks" in k and v is not None}
        state[name] = (public, hooks)
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    state[f"{name}.{key}"] = (id(tensor), tensor.data_ptr(), bits(tensor))
                    state[f"{name}.{key} "] = (tensor.requires_grad, tensor.is_inference())
                    if tensor.grad is not None:
                        state[f"{name}.{key} grad"] = (id(tensor.grad), bits(tensor.grad))
    return state


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


class Sentinel:
    """Held by a forward for as long as it lives."""

    alive: ClassVar[weakref.WeakSet[Sentinel]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)


@pytest.fixture(autouse=True, scope="module")
def _everything_is_imported() -> None:
    """Some libraries add to the warnings filters when they are first used."""
    recalibrate_alone(net("plain"), images(8).split(4))


@pytest.fixture(autouse=True)
def _torch_is_as_before() -> Iterator[None]:
    """Also: no forward is left waiting, and nothing that one held."""
    Sentinel.alive.clear()
    before = torch_state()
    yield
    after = torch_state()
    assert [key for key in before if before[key] != after[key]] == []
    if len(Sentinel.alive):
        gc.collect()
    assert len(Sentinel.alive) == 0


Middle = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """`first`, what the test puts in the middle, `last`; both are BN layers behind convolutions."""

    def __init__(self, middle: Middle | None = None) -> None:
        super().__init__()
        self.stem, self.first = conv(3, 6), nn.BatchNorm2d(6)
        self.inner, self.norm = conv(6, 6), nn.BatchNorm2d(6)
        self.deep, self.last = conv(6, 5), nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 4)
        self.middle = middle

    def body(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.inner(x)))

    def forward(self, x: Tensor) -> Tensor:
        sentinel = Sentinel()
        x = torch.relu(self.first(self.stem(x)))
        x = self.middle(self, x) if self.middle is not None else self.body(x)
        x = self.last(self.deep(x.to(self.deep.weight.dtype)))
        assert sentinel is not None
        return self.head(x.mean((2, 3)))


def seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spoilt(make())


def build(middle: Middle | None = None, kind: type[Net] | None = None) -> Net:
    """In the middle of training: one frozen weight, a gradient, mixed modes."""
    model = seeded(lambda: (kind or Net)(middle)).train()
    model.norm.eval()
    model.inner.weight.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.head(torch.ones(2, 5)).sum().backward()
    return model


def reverted(model: nn.Module, data: Any, **options: Any) -> Any:
    """The recalibration of a model that is as before afterwards, bit for bit."""
    before = model_state(model)
    result = recalibrate_alone(model, data, **options)
    result.revert()
    after = model_state(model)
    assert [key for key in before if before[key] != after.get(key)] == []
    assert before.keys() == after.keys()
    return result


def fails(error: type[BaseException], model: nn.Module, data: Any, **options: Any) -> Any:
    """The error of a recalibration that leaves the model as before, bit for bit."""
    before = model_state(model)
    with pytest.raises(error) as raised:
        recalibrate_alone(model, data, **options)
    after = model_state(model)
    assert [key for key in before if before[key] != after.get(key)] == []
    assert before.keys() == after.keys()
    message, batch = str(raised.value), getattr(raised.value, "batch", None)
    error_type = type(raised.value)
    del raised
    return message, batch, error_type


def is_exact(middle: Middle, tolerance: float = ROUNDING) -> None:
    model, x = build(middle), images(32)
    result = reverted(model, x.split(8))
    assert result.report.method == "exact"
    assert result.report.notes == ()
    assert largest_difference(result.statistics, as_one_batch(build(), x)) < tolerance


# Contexts that a model enters around a layer


def in_no_grad(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.body(x)


def in_enable_grad(net: Net, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = net.body(x)
        assert torch.is_grad_enabled()
    assert not torch.is_grad_enabled()
    return x


def in_inference_mode(net: Net, x: Tensor) -> Tensor:
    with torch.inference_mode():
        x = net.body(x)
        assert torch.is_inference_mode_enabled()
    return x.clone()


def out_of_inference_mode(net: Net, x: Tensor) -> Tensor:
    with torch.inference_mode():
        x = net.inner(x)
        with torch.inference_mode(False):
            x = torch.relu(net.norm(x.clone()))
            assert not torch.is_inference_mode_enabled()
        assert torch.is_inference_mode_enabled()
    return x.clone()


def in_autocast_off(net: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return net.body(x)


def on_a_device(net: Net, x: Tensor) -> Tensor:
    with torch.device("cpu") as device:
        x = net.body(x)
        assert torch.zeros(1).device == device
    return x


def after_an_exception(net: Net, x: Tensor) -> Tensor:
    try:
        raise ValueError("a way to say: not here")
    except ValueError:
        x = net.body(x)
        with pytest.raises(ValueError, match="not here"):
            raise
    return x


def in_try_finally(net: Net, x: Tensor) -> Tensor:
    try:
        return net.body(x)
    finally:
        assert not torch.is_grad_enabled()


def in_a_generator(net: Net, x: Tensor) -> Tensor:
    def steps() -> Iterator[Tensor]:
        with torch.enable_grad():
            yield net.inner(x)
        y = yield net.norm(net.inner(x))
        assert y is None

    *_, y = steps()
    return torch.relu(y)


def in_a_context_manager_of_its_own(net: Net, x: Tensor) -> Tensor:
    @contextlib.contextmanager
    def scaled() -> Iterator[None]:
        yield

    with contextlib.ExitStack() as stack:
        stack.enter_context(scaled())
        stack.enter_context(torch.enable_grad())
        return net.body(x)


def by_its_forward(net: Net, x: Tensor) -> Tensor:
    return torch.relu(net.norm.forward(net.inner(x)))


def by_keyword(net: Net, x: Tensor) -> Tensor:
    return torch.relu(net.norm(input=net.inner(x)))


def in_a_function_mode(net: Net, x: Tensor) -> Tensor:
    class Counting(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kw: Any = None):
            return function(*args, **(kw or {}))

    mode = Counting()
    with mode:
        x = net.body(x)
        assert _get_current_function_mode_stack()[-1] is mode
    return x


def under_a_profiled_name(net: Net, x: Tensor) -> Tensor:
    with torch.profiler.record_function("body"):
        return net.body(x)


def checkpointed(net: Net, x: Tensor) -> Tensor:
    return checkpoint(net.body, x, use_reentrant=False)


def checkpointed_reentrant(net: Net, x: Tensor) -> Tensor:
    return checkpoint(net.body, x, use_reentrant=True)


def checkpointed_with_gradients(net: Net, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return checkpoint(net.body, x.requires_grad_(), use_reentrant=False).detach()


def in_an_event_loop(net: Net, x: Tensor) -> Tensor:
    async def body() -> Tensor:
        await asyncio.sleep(0)
        return net.body(x)

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(body())


WAYS = [
    *(in_no_grad, in_enable_grad, in_inference_mode, out_of_inference_mode, in_autocast_off),
    *(on_a_device, after_an_exception, in_try_finally, in_a_generator),
    *(in_a_context_manager_of_its_own, by_its_forward, by_keyword, in_a_function_mode),
    *(under_a_profiled_name, checkpointed, checkpointed_reentrant, checkpointed_with_gradients),
]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("way", WAYS)
def test_a_model_may_call_a_layer_in_a_context_of_its_own(way: Middle) -> None:
    is_exact(way)


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_model_may_run_its_layers_in_an_event_loop_of_its_own() -> None:
    """asyncio knows one running loop a thread: each forward gets a clear error, or the result."""
    model, x = build(in_an_event_loop), images(16)
    with contextlib.suppress(ModelError):
        reverted(model, x.split(8))


@pytest.mark.parametrize("way", [in_no_grad, in_autocast_off, in_inference_mode])
@pytest.mark.parametrize("caller", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_callers_own_mode_is_as_before(way: Middle, caller: Any) -> None:
    model, x = build(way), images(16)
    with caller():
        before = torch_state()
        reverted(model, x.split(8))
        after = torch_state()
    assert [key for key in before if before[key] != after[key]] == []


def test_layers_in_autocast_of_the_models_own_are_pooled_in_their_dtype() -> None:
    """The barrier does not run in the bfloat16 of a forward that waits in it."""
    seen: set[torch.dtype] = set()

    def in_bf16(net: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = net.inner(x)
            seen.add(y.dtype)
            y = torch.relu(net.norm(y))
            assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cpu")
        return y

    x = images(32)
    one = reverted(build(in_bf16), x.split(8))
    other = reverted(build(in_bf16), x.split(8), method="sequential")
    assert seen == {torch.bfloat16}
    assert largest_difference(one.statistics, other.statistics) < ROUNDING
    assert largest_difference(one.statistics, as_one_batch(build(), x)) < 2e-2
    assert one.report.residual < 1e-5


@pytest.mark.parametrize("way", [in_autocast_off, in_no_grad, None])
def test_inner_contexts_inside_our_autocast(way: Middle | None) -> None:
    x = images(32)

    def typed(net: Net, y: Tensor) -> Tensor:
        return way(net, y.float()) if way is not None else net.body(y)

    one = reverted(build(typed), x.split(8), dtype="bf16")
    other = reverted(build(typed), x.split(8), dtype="bf16", method="sequential")
    assert largest_difference(one.statistics, other.statistics) < ROUNDING
    assert largest_difference(one.statistics, as_one_batch(build(), x)) < 5e-2


def test_a_default_dtype_that_a_forward_sets_is_its_own_until_it_puts_it_back() -> None:
    def in_double(net: Net, x: Tensor) -> Tensor:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            x = net.body(x)
            assert torch.zeros(1).dtype == torch.float64
        finally:
            torch.set_default_dtype(before)
        return x

    is_exact(in_double)


def test_a_context_variable_is_each_forwards_own() -> None:
    variable: contextvars.ContextVar[float] = contextvars.ContextVar("largest", default=0.0)

    def remembered(net: Net, x: Tensor) -> Tensor:
        token = variable.set(float(x.sum()))
        y = net.body(x)
        assert variable.get() == float(x.sum())
        variable.reset(token)
        return y

    is_exact(remembered)
    assert variable.get() == 0.0


def test_numpys_error_state_is_each_forwards_own() -> None:
    def strict(net: Net, x: Tensor) -> Tensor:
        with np.errstate(all="raise"):
            y = net.body(x)
            assert np.geterr()["divide"] == "raise"
        assert np.geterr()["divide"] == "warn"
        return y

    before = np.geterr()
    is_exact(strict)
    assert np.geterr() == before


def global_switches() -> tuple[Any, ...]:
    """Of the process, not of the thread; context managers put them back to what they found."""
    return (
        list(warnings.filters),
        torch.is_anomaly_enabled(),
        torch.backends.cudnn.enabled,
        torch.backends.mkldnn.enabled,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_warn_always_enabled(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.mkldnn.deterministic,
        torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


SWITCHES: dict[str, Callable[[], Any]] = {
    "warnings": quiet,
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "cudnn": lambda: torch.backends.cudnn.flags(enabled=False),
    "mkldnn": lambda: torch.backends.mkldnn.flags(enabled=False),
    "determinism": deterministic,
    "attention": lambda: sdpa_kernel([SDPBackend.MATH]),
    "tf32": lambda: torch.backends.cudnn.flags(allow_tf32=False),
    "deterministic mkldnn": lambda: torch.backends.mkldnn.flags(deterministic=True),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:TF32 acceleration")
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_of_the_process_that_a_forward_puts_back_is_as_before(switch: str) -> None:
    def switched(net: Net, x: Tensor) -> Tensor:
        with SWITCHES[switch]():
            return net.body(x)

    with (
        warnings.catch_warnings(),  # whatever happens, the next test finds them as they were
        torch.autograd.set_detect_anomaly(False),
        torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled),
        torch.backends.mkldnn.flags(enabled=torch.backends.mkldnn.enabled),
    ):
        before = global_switches()
        try:
            is_exact(switched)
            after = global_switches()
        finally:
            torch.use_deterministic_algorithms(False)
    assert after == before


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:TF32 acceleration")
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_of_the_process_is_found_again_by_the_forward_that_set_it(switch: str) -> None:
    """And by no other: half of the batches do not set it."""
    found: list[bool] = []

    def switched(net: Net, x: Tensor) -> Tensor:
        outside = global_switches()
        if float(x.detach().sum()) < threshold:
            y = net.body(x)
            found.append(global_switches() == outside)
            return y
        with SWITCHES[switch]():
            inside = global_switches()
            y = net.body(x)
            found.append(global_switches() == inside)
        found.append(global_switches() == outside)
        return y

    sums: list[float] = []
    threshold = float("inf")
    x = images(32)
    reverted(build(lambda net, x: (sums.append(float(x.sum())), net.body(x))[1]), x.split(8))
    threshold = sorted(sums)[len(sums) // 2]
    reverted(build(switched), x.split(8))
    assert all(found)


COARSER_PRODUCTS = """
import torch, bnaudit
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = torch.nn.BatchNorm2d(3)
    def forward(self, x):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            x = self.bn(x)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision(before)
        return x.mean((2, 3))
report = bnaudit.recalibrate(Net(), torch.randn(16, 3, 4, 4).split(4)).report
assert report.method == "exact"
assert torch.get_float32_matmul_precision() == "highest"
"""


def test_a_precision_of_products_that_a_forward_puts_back_is_as_before() -> None:
    """In a process of its own: what torch refuses to read would fail the tests after this one."""
    process = get_context("fork").Process(target=exec, args=(COARSER_PRODUCTS, {}))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_parameters_that_a_forward_puts_in_place_for_a_call_are_gone_after_it() -> None:
    def called(net: Net, x: Tensor) -> Tensor:
        x = net.inner(x)
        scaled = {key: value * 1.0 for key, value in net.norm.named_parameters()}
        return torch.relu(torch.func.functional_call(net.norm, scaled, (x,)))

    is_exact(called)


def test_a_dispatch_mode_sees_the_operations_of_its_own_forward_alone() -> None:
    class Norms(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.sizes: set[int] = set()

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kw: Any = None):
            if "batch_norm" in function.name():
                self.sizes.add(len(args[0]))
            return function(*args, **(kw or {}))

    seen: list[set[int]] = []

    def watched(net: Net, x: Tensor) -> Tensor:
        with Norms() as mode:
            y = net.body(x)
        seen.append(mode.sizes ^ {len(x)})
        return y

    model, x = build(watched), images(32)
    reverted(model, x.split([10, 12, 10]))
    assert seen == [set()] * len(seen)


@pytest.mark.parametrize(
    "where",
    ["submodule", *(pytest.param(w, marks=pytest.mark.slow) for w in ("whole", "in place"))],
)
def test_a_compiled_model_runs_eagerly_in_lockstep(where: str) -> None:
    model, x = build(), images(32)
    expected = as_one_batch(model, x)
    torch._dynamo.reset()
    if where == "submodule":

        class Body(nn.Module):
            def __init__(self, inner: nn.Module, norm: nn.Module) -> None:
                super().__init__()
                self.inner, self.norm = inner, norm

            def forward(self, x: Tensor) -> Tensor:
                return torch.relu(self.norm(self.inner(x)))

        compiled = torch.compile(Body(model.inner, model.norm), backend="eager")
        model.compiled = compiled
        model.middle = lambda net, x: net.compiled(x)
        wrapped: Any = model
    elif where == "whole":
        wrapped = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
        wrapped = model
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        with torch.random.fork_rng(devices=[]):
            wrapped.eval()(x[:8])  # compiled before it is recalibrated
    result = reverted(wrapped, x.split(8))
    assert largest_difference(result.statistics, expected) < ROUNDING
    with torch.no_grad():
        after = wrapped(x[:8])
    torch.testing.assert_close(after, copy.deepcopy(model).eval()(x[:8]).detach())
    torch._dynamo.reset()


# Layers that are called several times


class SharedHead(nn.Module):
    """As RetinaNet: one head with BN on feature maps of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = conv(3, 4), nn.BatchNorm2d(4)
        self.down, self.down_bn = conv(4, 4, stride=2), nn.BatchNorm2d(4)
        self.head, self.head_bn, self.last = conv(4, 4), nn.BatchNorm2d(4), conv(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.bn(self.stem(x)))
        coarse = torch.relu(self.down_bn(self.down(fine)))
        maps = [torch.relu(self.head_bn(self.head(y))) for y in (fine, coarse)]
        return torch.stack([self.last(y).mean((1, 2, 3)) for y in maps], 1)


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_a_shared_head_is_pooled_over_its_feature_maps(method: Any) -> None:
    model, x = seeded(SharedHead), images(32)
    expected = by_repeated_updates(model, x, 6)
    result = reverted(model, x.split(8), method=method)
    assert largest_difference(result.statistics, expected) < ROUNDING
    assert result.report.residual < 1e-6
    assert result.report.method == method
    assert "head_bn" in " ".join(result.report.notes) or method == "sequential"


class Recurrent(nn.Module):
    """One BN in every step of a recurrence, with another between the steps."""

    def __init__(self, steps: int = 3) -> None:
        super().__init__()
        self.stem, self.bn = conv(3, 4), nn.BatchNorm2d(4)
        self.step, self.step_bn = conv(4, 4), nn.BatchNorm2d(4)
        self.mix, self.mix_bn = conv(4, 4, 1), nn.BatchNorm2d(4)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        for _ in range(self.steps):
            x = x + 0.1 * torch.tanh(self.mix_bn(self.mix(self.step_bn(self.step(x)))))
        return x.mean((2, 3))


@pytest.mark.parametrize("method", ["exact", "sequential"])
def test_a_recurrent_use_of_a_layer_is_swept_until_it_settles(method: Any) -> None:
    model, x = seeded(Recurrent), images(32)
    result = reverted(model, x.split(8), method=method)
    assert result.report.residual <= 1e-5
    assert "sweeps" in " ".join(result.report.notes)
    assert largest_difference(result.statistics, by_repeated_updates(model, x, 40)) < 1e-4


class TwiceForBright(nn.Module):
    """A batch with a bright pixel goes through the layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.again = conv(3, 4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        bright = bool(x.max() > 50)
        x = torch.relu(self.bn(self.stem(x)))
        y = torch.relu(self.again(x))
        return (self.again(y) if bright else y).mean((2, 3))


def with_a_bright_pixel(x: Tensor, sample: int) -> Tensor:
    x[sample, 0, 0, 0] = 60
    return x


@pytest.mark.parametrize("sample", [pytest.param(3, marks=pytest.mark.slow), 21])
def test_a_layer_called_twice_by_some_batches_settles(sample: int) -> None:
    """Called twice by the first batch, or by a later one alone."""
    x = with_a_bright_pixel(images(32), sample)
    result = reverted(seeded(TwiceForBright), x.split(8), method="sequential")
    expected = by_repeated_updates_of_batches(seeded(TwiceForBright), x.split(8), 60)
    assert largest_difference(result.statistics, expected) < 1e-4
    assert result.report.residual <= 1e-5


@pytest.mark.parametrize("sample", [pytest.param(3, marks=pytest.mark.slow), 21])
def test_a_layer_called_twice_by_some_batches_is_out_of_order_or_swept(sample: int) -> None:
    x = with_a_bright_pixel(images(32), sample)
    model = seeded(TwiceForBright)
    with contextlib.suppress(OutOfOrderError):
        result = reverted(model, x.split(8))
        assert "again" in " ".join(result.report.notes)
        assert result.report.residual < result.report.residual_before
    notes = " ".join(reverted(model, x.split(8), method="sequential").report.notes)
    assert "sweeps" in notes
    assert "residual" in notes


# Batches that take different ways


class Bright(Net):
    """A batch with a bright image takes another way."""

    def forward(self, x: Tensor) -> Tensor:
        if not bool(x.max() > 500):
            return super().forward(x)
        x = torch.relu(self.first(self.stem(x)))
        return self.other_way(x)

    def other_way(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Reversed(Bright):
    def other_way(self, x: Tensor) -> Tensor:
        y = self.last(self.deep(x)).mean((2, 3))
        return self.head(y + self.body(x).mean())


class Skipping(Bright):
    def other_way(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.deep(x)).mean((2, 3)))


class Short(Bright):
    def other_way(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (Reversed, "batch 0 calls layer norm where batch 2 calls last"),
        (Skipping, "batch 0 calls layer norm where batch 2 calls last"),
        (Short, "batch 0 calls layer norm where batch 2 has ended"),
    ],
)
def test_batches_that_take_different_ways_are_told_where_and_sequential_settles_them(
    kind: type[Net], where: str
) -> None:
    x = images(32)
    x[17] += 1000
    message, _, error = fails(OutOfOrderError, build(kind=kind), x.split(8))
    assert issubclass(error, ModelError)
    assert where in message
    assert "sequential" in message
    assert "precise" in message
    assert "\n" not in message
    result = reverted(build(kind=kind), x.split(8), method="sequential")
    assert result.statistics.keys() == {"first", "norm", "last"}
    assert result.report.residual <= 1e-5
    model = seeded(lambda: kind())
    expected = by_repeated_updates_of_batches(model, x.split(8), 6)
    assert largest_difference(result.statistics, expected) < 1e-5
    reverted(build(kind=kind), x.split(8), method="precise")


# Threads


def test_layers_called_in_a_thread_of_the_models_own_are_one_clear_error() -> None:
    def elsewhere(net: Net, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(net.body, x).result()

    message, _, _ = fails(ModelError, build(elsewhere), images(16).split(8))
    assert "norm is called from another thread" in message
    assert "sequential" in message
    assert message.count("\n") == 0
    x = images(16)
    found = reverted(build(elsewhere), x.split(8), method="sequential")
    assert largest_difference(found.statistics, as_one_batch(build(), x)) < ROUNDING


# Endings


def raises_at(error: Callable[[], BaseException], batch: int) -> Middle:
    """Raises for the batch whose first pixel says so; before, in and after contexts."""

    def middle(net: Net, x: Tensor) -> Tensor:
        with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("cpu"):
            random.random()
            torch.rand(1)
            x = net.body(x).float()
            if float(x.detach().abs().max()) > 15:
                net.norm.running_mean.add_(1.0)
                raise error()
        return x

    return middle


def one_bright_batch() -> list[Tensor]:
    x = images(32)
    x[17] = x[17] * 1e4
    return list(x.split(8))


def test_a_model_that_raises_in_the_middle_is_told_with_its_batch() -> None:
    model = build(raises_at(lambda: RuntimeError("a model of many faults"), 2))
    message, _, _ = fails(ModelError, model, one_bright_batch())
    assert "a model of many faults" in message
    assert "batch 2" in message


def test_an_interrupt_in_the_middle_goes_through() -> None:
    model = build(raises_at(KeyboardInterrupt, 2))
    _, _, error = fails(KeyboardInterrupt, model, one_bright_batch())
    assert error is KeyboardInterrupt


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
def test_an_exit_in_the_middle_goes_through(error: Any) -> None:
    fails(error, build(raises_at(error, 2)), one_bright_batch())


@pytest.mark.parametrize(
    "error", [lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError]
)
def test_running_out_of_memory_gives_the_number_to_try(error: Any) -> None:
    message, _, _ = fails(OutOfMemoryError, build(raises_at(error, 2)), one_bright_batch())
    assert "--samples 19" in message
    assert "32 samples" in message
    assert "--method sequential" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["exact", "sequential", "precise", "ema"])
def test_an_activation_that_is_not_finite_is_named_with_layer_and_batch(
    value: float, method: Any
) -> None:
    def poisoned(net: Net, x: Tensor) -> Tensor:
        y = net.body(x)
        return torch.where(x.amax() > 15, value, y)

    message, batch, _ = fails(NonFiniteError, build(poisoned), one_bright_batch(), method=method)
    assert "layer last" in message
    assert batch == 2


def test_a_forward_that_refuses_to_end_is_ended() -> None:
    """Bare `except` clauses around layers, as some libraries have them."""

    def stubborn(net: Net, x: Tensor) -> Tensor:
        for _ in range(3):
            try:
                return net.body(x)
            except BaseException:
                if float(x.abs().max()) > 15:
                    raise
        return x

    def then_raises(net: Net, x: Tensor) -> Tensor:
        y = stubborn(net, x)
        if float(x.abs().max()) > 15:
            raise RuntimeError("a model of many faults")
        return y

    fails(ModelError, build(then_raises), one_bright_batch())


def test_finally_clauses_of_waiting_forwards_run_when_another_one_fails() -> None:
    closed: list[int] = []

    def tidy(net: Net, x: Tensor) -> Tensor:
        try:
            y = net.body(x)
            net.last(net.deep(y))
            if float(x.abs().max()) > 15:
                raise RuntimeError("a model of many faults")
            return net.body(y)
        finally:
            closed.append(len(x))

    model = build(tidy)
    fails(ModelError, model, one_bright_batch(), method="sequential")
    closed.clear()
    fails(ModelError, model, one_bright_batch())
    assert len(closed) >= 1


def test_an_error_while_looking_at_the_data_leaves_everything_as_it_was() -> None:
    def stream() -> Iterator[Tensor]:
        yield from images(16).split(8)
        raise RuntimeError("the disk is gone")

    fails(bnaudit.errors.InputError, build(), stream())


def test_a_progress_bar_that_is_interrupted_leaves_everything_as_it_was() -> None:
    @contextlib.contextmanager
    def bar(what: str, *of: Any) -> Iterator[Callable[[int], None]]:
        def advance(done: int) -> None:
            if what.startswith("recalibrating"):
                raise KeyboardInterrupt

        yield advance

    fails(KeyboardInterrupt, build(in_inference_mode), images(32).split(8), progress=bar)
