"""Nothing waits for the device while a forward is measured.

On a machine without one, tensors that only say that they are on a CUDA device take the same way
through the code; what would wait for a real one is refused. `set_sync_debug_mode` refuses it on
a real one. Both see copies and values that are asked for; that the results of the batch before are
waited for at the end of the next one (an event, not the whole device) is meant, and neither sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnaudit.engine import train_mode
from bnaudit.engine.batches import Batch, default_forward, labels_of, slice_batch
from bnaudit.engine.collect import Collector
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.layers import find_layers
from bnaudit.engine.minibatch import MiniBatchStatistics
from bnaudit.engine.outputs import OutputComparison
from bnaudit.engine.passes import measure_pass
from bnaudit.engine.population import Account, Calibration
from bnaudit.engine.state import intercepted

ASKS_FOR_VALUES = (
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
)


class Net(nn.Sequential):
    """Maps that are large and small, a layer on vectors, and class scores."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 4)),
        )


class NoWaiting(TorchDispatchMode):
    """Refuses, between tensors that say where they are, what would wait for a device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kw: Any = None) -> Any:
        kw = kw or {}
        name = function.name().split(".")[0]
        given = [t for t in tree_leaves((args, kw)) if isinstance(t, Tensor)]
        if not any(t.device.type == "cuda" for t in given):
            devices = [leaf for leaf in tree_leaves(kw) if isinstance(leaf, torch.device)]
            if not (given and any(device.type == "cuda" for device in devices)):
                return function(*args, **kw)
        if name in ASKS_FOR_VALUES:
            raise AssertionError(f"{name} waits for the device")
        if name == "aten::index" and any(t.dtype == torch.bool for t in given[1:]):
            raise AssertionError("an index by a mask waits for the device")
        output = function(*args, **kw)
        made = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
        # A number in a CPU tensor of its own travels as an argument of the kernel.
        given = [t for t in given if t.dim() > 0 or t.device.type != "cpu"]
        places = {t.device.type for t in (*given, *made)}
        if len(places) > 1 and not (kw.get("non_blocking") or True in args[2:]):
            raise AssertionError(f"{name} copies between {' and '.join(sorted(places))} and waits")
        return output


class UpdateStats(TorchDispatchMode):
    """The one operation that has no rule for tensors without values: on CUDA it gives float32."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kw: Any = None) -> Any:
        if function is not torch.ops.aten.batch_norm_update_stats.default:
            return function(*args, **(kw or {}))
        x = args[0]
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return tuple(torch.empty(x.shape[1], dtype=wide, device=x.device) for _ in range(2))


@pytest.fixture
def pretended() -> Iterator[torch.device]:
    """A CUDA device that computes shapes and dtypes, and no values."""
    with FakeTensorMode(allow_non_fake_inputs=True), UpdateStats():
        yield torch.device("cuda", 0)


GROUPS = (torch.arange(64) * 8 // 64).split(16)
"""Of four batches of 16; made here, because groups are numbers and never leave the CPU."""


def batches_of_16(number: int) -> Iterator[Batch]:
    """(images, labels) on the host."""
    for index in range(number):
        data = torch.rand(16, 3, 12, 12), torch.arange(16) % 4
        yield Batch(index, data, GROUPS[index])


class Step:
    """What a pass of `measure` does with a batch, up to the end of its forwards."""

    def __init__(self, device: torch.device) -> None:
        with device:
            self.model = Net().eval()
        self.conditions = Conditions(default_forward, device)
        self.layers = find_layers(self.model)
        self.collector = Collector(8, 8)
        self.comparison = OutputComparison("auto", 8)
        self.mini_batch = MiniBatchStatistics()

    def __call__(self, batch: Batch) -> None:
        data = self.conditions.moved(batch)
        labels = labels_of(data)
        assert labels is not None
        self.collector.start(batch)
        with intercepted(self.layers, self.collector):
            output = self.conditions.run(self.model, data, batch)
        self.comparison.deployed(output, labels, batch.size)
        for start in (0, 8):
            cut = (start, start + 8, batch.size)
            with intercepted(self.layers, self.mini_batch):
                other = self.conditions.run(self.model, slice_batch(data, *cut), batch)
            part = labels[start : start + 8]
            self.comparison.pair(slice_batch(output, *cut), other, part, 8)


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x.cpu(),
        lambda x: x.mean().to("cpu"),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.zeros(3).to(x.device),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_waits_for_a_device_is_seen(
    waits: Callable[[Tensor], Any], pretended: torch.device
) -> None:
    """So that the tests below can fail."""
    x = torch.zeros(5, device=pretended)
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        waits(x)


@torch.no_grad()
def test_no_layer_and_no_output_of_a_batch_is_waited_for(pretended: torch.device) -> None:
    step = Step(pretended)
    first, *others = batches_of_16(4)
    step(first)  # the layers' own statistics come to the host once
    with NoWaiting():
        for batch in others:
            step(batch)
    assert len(step.collector.records) == 3


@torch.no_grad()
def test_exact_looks_at_an_input_without_waiting(pretended: torch.device) -> None:
    """What comes to the host comes at the barriers."""
    step = Step(pretended)
    work = Calibration(step.model, step.layers, [], 8, step.conditions, lambda *_: None)
    account, seen = Account(work), []

    def look(layer: Any, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        seen.append(account.look(batch, layer, x))
        return forward(x)

    with NoWaiting(), intercepted(step.layers, look):
        for batch in batches_of_16(4):
            work.forward(batch)
    assert len(seen) == 12
    assert all(one is not None and one.moments.mean.is_cuda for one in seen)


@torch.no_grad()
def test_precise_normalises_by_a_batch_without_waiting_for_its_moments(
    pretended: torch.device,
) -> None:
    step = Step(pretended)
    batches = list(batches_of_16(2))
    work = Calibration(step.model, step.layers, batches, 8, step.conditions, lambda *_: None)
    with NoWaiting():
        seen = train_mode._mini_batch_pass(work, Account(work), lambda layer, runs: runs.whole())
    assert [len(inputs) for inputs in seen.values()] == [2, 2, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_measure_waits_for_no_layer_and_no_batch(
    dtype: torch.dtype | None, cuda: torch.device
) -> None:
    """PyTorch refuses every wait between the second batch and the end of the last one."""
    torch.manual_seed(0)
    model = Net().eval().to(cuda)

    def strict_after_two() -> Iterator[Batch]:
        try:
            for batch in batches_of_16(4):
                if batch.index == 2:
                    torch.cuda.set_sync_debug_mode("error")
                yield batch
        finally:
            torch.cuda.set_sync_debug_mode("default")

    seen = measure_pass(
        model,
        find_layers(model),
        strict_after_two(),
        8,
        Conditions(default_forward, cuda, autocast=dtype),
        mini_batch_size=8,
    )
    assert seen.samples == 64
    assert seen.network.compared == 64
