"""What a few samples tell before the work: which layers are called how often, how much memory a
forward keeps alive, and whether anything in the model depends on chance or on batch mates.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnaudit.engine.batches import Batch, slice_batch
from bnaudit.engine.conditions import Conditions, ForwardError
from bnaudit.engine.layers import BNLayer, channels_first
from bnaudit.engine.probe import settled
from bnaudit.engine.state import intercepted

SAMPLES = 4
"""Enough to tell one sample from its mates, few enough to cost nothing."""

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
"""Relative difference of a layer's input beyond which it has changed; rounding gives 1e-6."""

COARSE = 3e-2
"""The same for half precision."""


@dataclass(frozen=True)
class Trial:
    """What the first samples of the data tell.

    `calls`: of each layer in a forward, in the order of first calls; `live_bytes`: what each sample
    keeps alive at the widest call of a layer; `peak_bytes`: at its worst moment; `fixed_bytes`:
    what comes on top whatever the number of samples (weights cast by autocast), from one batch on;
    `dependence`: sentences about what makes results depend on the batches or on chance,
    `stochastic` whether on chance; `training`: layers that the forward itself puts into training
    mode.
    """

    calls: dict[str, int]
    live_bytes: int
    peak_bytes: int
    dependence: tuple[str, ...]
    fixed_bytes: int = 0
    stochastic: bool = False
    training: frozenset[str] = frozenset()


def try_out(model: nn.Module, layers: list[BNLayer], batch: Batch, conditions: Conditions) -> Trial:
    """Run a few samples of `batch` through `model`, inside `conditions.entered(model)`.

    Layers of unknown kind are settled by it. Where the model takes no part of a batch (a graph, a
    clip of frames), the whole of it is tried. Whether samples depend on each other is not known
    then, nor for batches of one.
    """
    size = min(SAMPLES, batch.size)
    try:
        return _try_samples(model, layers, batch, size, conditions)
    except ForwardError:
        if size == batch.size:
            raise
        return _try_samples(model, layers, batch, batch.size, conditions)


def _try_samples(
    model: nn.Module, layers: list[BNLayer], batch: Batch, size: int, conditions: Conditions
) -> Trial:
    data = slice_batch(conditions.moved(batch), 0, size, batch.size)
    watched = [layer for layer in layers if layer.role != "not-audited"]

    def run(data: Any, memory: _LiveMemory | None = None) -> _Look:
        look = _Look(memory)
        with memory or nullcontext(), intercepted(watched, look):
            output = conditions.run(model, data, batch)
        look.output = output
        return look

    memory, less = _LiveMemory(model), _LiveMemory(model)
    first = run(data, memory)
    again = run(data)
    half = size // 2
    need = _Need.all_by_samples(memory, size)
    if half:
        with suppress(ForwardError):
            run(slice_batch(data, 0, half, size), less)
            need = _Need.of(memory, size, less, half, batch.size)
    sentences = []
    chance = _first_change(first, again, size, 0, size)
    if chance is not None:
        sentences.append(
            f"the forward is stochastic: {chance} differs between two runs of the same batch"
        )
    by_the_batch = [layer for layer in watched if layer.role == "batch-dependent"]
    called = [layer.name for layer in by_the_batch if layer.name in first.calls]
    if called:
        sentences.append(
            f"{len(called)} layers without running statistics normalise by the batch: "
            f"{', '.join(called[:4])}{' …' if len(called) > 4 else ''}"
        )
    elif chance is None and size > 1:
        for start, stop in ((0, half), (half, size)):
            with suppress(ForwardError):
                alone = run(slice_batch(data, start, stop, size))
                mates = _first_change(first, alone, size, start, stop)
                if mates is not None:
                    said = f"{mates} of a sample depends on the other samples of its batch"
                    sentences.append(said)
                    break
    names = {layer.name for layer in watched if layer.role == "estimated"}
    return Trial(
        calls={name: calls for name, calls in first.calls.items() if name in names},
        live_bytes=need.live,
        peak_bytes=max(need.live, need.peak),
        dependence=tuple(sentences),
        fixed_bytes=need.fixed,
        stochastic=chance is not None,
        training=frozenset(first.training),
    )


@dataclass(frozen=True)
class _Need:
    """Bytes: of each sample at the call where it keeps most and at its worst moment, and besides.

    n samples, of which one batch of b is on its way, need at most n·live + b·(peak − live) + fixed,
    for any n of at least b.
    """

    live: int
    peak: int
    fixed: int

    @classmethod
    def all_by_samples(cls, memory: _LiveMemory, size: int) -> _Need:
        """Everything counts with the samples: from one forward alone."""
        live, peak = max(memory.at_calls, default=0), max(memory.peaks)
        return cls(-(-live // size), -(-peak // size), 0)

    @classmethod
    def of(
        cls, memory: _LiveMemory, size: int, less: _LiveMemory, fewer: int, batch_size: int
    ) -> _Need:
        """From what `size` and `fewer` samples keep alive at every call, and between the calls.

        Between calls i and i + 1, (n − b)·live_i + b·peak_i + fixed_i are alive; where live is
        most, weights of layers further down have not been cast yet.
        """
        if len(memory.at_calls) != len(less.at_calls):
            return cls.all_by_samples(memory, size)

        def slopes(more: list[int], few: list[int]) -> list[float]:
            return [(a - b) / (size - fewer) for a, b in zip(more, few, strict=True)]

        live = max(slopes(memory.at_calls, less.at_calls), default=0.0)
        peaks = slopes(memory.peaks, less.peaks)
        of_a_batch = [
            peak + slope * (batch_size - size)
            for peak, slope in zip(memory.peaks, peaks, strict=True)
        ]
        fixed = max(of_a_batch) - max(0.0, *peaks) * batch_size
        return cls(*(math.ceil(max(0.0, bytes_)) for bytes_ in (live, max(peaks), fixed)))


@dataclass
class _Look:
    """Handler: counts calls, and keeps two figures of every row of every input."""

    memory: _LiveMemory | None
    calls: dict[str, int] = field(default_factory=dict)
    training: set[str] = field(default_factory=set)
    rows: list[tuple[str, Tensor, float]] = field(default_factory=list)
    output: Any = None

    def __call__(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> Any:
        if self.memory is not None:
            self.memory.mark()
        with self.memory.aside() if self.memory is not None else nullcontext():
            self._note(layer, forward, x)
        return forward(x)

    def _note(self, layer: BNLayer, forward: Callable[[Tensor], Any], x: Tensor) -> None:
        self.calls[layer.name] = self.calls.get(layer.name, 0) + 1
        if layer.module.training:
            self.training.add(layer.name)
        settled(layer, forward, x)
        if isinstance(x, Tensor) and x.numel() and x.dim() >= 2:
            values = channels_first(layer, x).flatten(1)
            wide = values if values.dtype == torch.float64 else values.float()
            rows = torch.stack([wide.mean(1), wide.square().mean(1).sqrt()], 1)
            self.rows.append((layer.name, rows, _tolerance(values)))


def _first_change(a: _Look, b: _Look, size: int, start: int, stop: int) -> str | None:
    """What of the samples `start` to `stop` of `size`, alone in `b`, changed first: a layer's
    input, or the output."""
    part, own = stop - start, slice(start, stop)
    for (name, x, tolerance), (other, y, _) in zip(a.rows, b.rows, strict=False):
        if name != other:
            return f"the way to layer {name}"
        if x.shape[0] == size and y.shape[0] == part and _differ(x[own], y, tolerance):
            return f"the input of layer {name}"
    outputs = zip(_tensors(a.output), _tensors(b.output), strict=False)
    for x, y in outputs:
        alike = x.shape[:1] == (size,) and y.shape == (part, *x.shape[1:])
        if alike and _differ(x[own], y, _tolerance(x)):
            return "the output"
    return None


def outputs_differ(a: Any, b: Any) -> bool:
    """Whether two outputs for the same data differ by more than rounding."""
    pairs = zip(_tensors(a), _tensors(b), strict=False)
    return any(x.shape != y.shape or _differ(x, y, 10 * _tolerance(x)) for x, y in pairs)


def _tensors(output: Any) -> list[Tensor]:
    leaves = tree_leaves(output)
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point() and t.dim() > 0]


def _tolerance(x: Tensor) -> float:
    return TOLERANCE.get(x.dtype, COARSE)


def _differ(x: Tensor, y: Tensor, tolerance: float) -> bool:
    if not x.numel():
        return False
    scale = x.abs().amax().clamp(min=1e-30)
    return bool((x - y).abs().amax() > tolerance * scale)


class _LiveMemory(TorchDispatchMode):
    """Counts the bytes of all storages that operations made and that are still alive.

    `at_calls`: when a layer was called; `peaks`: the most before the first call, between calls, and
    after the last. Views of the model's weights and buffers are not made by its operations.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._live = 0
        self._aside = False
        own = (*model.parameters(), *model.buffers())
        self._known = {t.untyped_storage()._cdata for t in own if t.layout == torch.strided}
        self.at_calls: list[int] = []
        self.peaks = [0]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and count what it made."""
        output = function(*args, **(kwargs or {}))
        for tensor in () if self._aside else tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                self._count(tensor.untyped_storage())
        return output

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is made inside is not the forward's, and does not count."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        weakref.finalize(storage, self._forget, key, size)
        self._live += size
        self.peaks[-1] = max(self.peaks[-1], self._live)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size

    def mark(self) -> None:
        """A layer is called now: what is alive would wait here."""
        self.at_calls.append(self._live)
        self.peaks.append(self._live)
