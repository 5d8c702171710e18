"""How data go through a model: where, in which dtype, and what is said when it fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnaudit.engine.batches import Batch, describe, map_tensors, to_device
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.engine.state import inference, placed, seeded
from bnaudit.engine.stopwatch import doing
from bnaudit.errors import BnauditError, InputError, ModelError, one_line

Forward = Callable[[nn.Module, Any], Any]

_OUT_OF_MEMORY = ("DefaultCPUAllocator", "STATUS_ALLOC_FAILED", "out of memory")

LARGEST_SEED = 2**63 - 1
"""What every generator takes, and a document holds."""

_PACKAGE = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class Conditions:
    """How data go through the model.

    `device`: where the data go; `model_device`: where the model goes, None leaves it where it is.
    `autocast` None keeps the model's own dtype. `ranks`: who shares the work. Raises `InputError`
    for a seed that is none.
    """

    forward: Forward
    device: torch.device
    model_device: torch.device | None = None
    autocast: torch.dtype | None = None
    channels_last: bool = False
    seed: int = 0
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed is {self.seed}: give a number from 0 to {LARGEST_SEED}")

    def casting(self) -> AbstractContextManager[Any]:
        """The autocast context of one forward; a caller's own does not reach inside."""
        if self.autocast is None:
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast(self.device.type, dtype=self.autocast)

    @contextmanager
    def entered(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` is ready for passes; it and the generators are as before afterwards."""
        with (
            seeded(self.seed, self.device),
            placed(model, self.model_device, channels_last=self.channels_last),
            inference(model),
        ):
            yield

    def moved(self, batch: Batch) -> Any:
        """The batch's data where the forward runs. Raises `OutOfMemoryError`."""
        try:
            with doing("data"):
                return to_device(batch.data, self.device, channels_last=self.channels_last)
        except Exception as error:
            if ran_out_of_memory(error):
                raise OutOfMemoryError(self._out_of_memory(batch)) from error
            raise

    def _out_of_memory(self, batch: Batch) -> str:
        return (
            f"out of memory on {self.device} with batches of {batch.size}: give a smaller "
            "--batch-size"
        )

    def run(self, model: nn.Module, data: Any, batch: Batch) -> Any:
        """The forward of `data`, which is `batch` on the device, or a part of it.

        Raises `ForwardError` where the model cannot take it, `OutOfMemoryError`.
        """
        try:
            with doing("forward"), self.casting():
                # A copy: a model may work on its input in place, and it is read again.
                return self.forward(model, map_tensors(Tensor.clone, data))
        except BnauditError:
            raise
        except Exception as error:
            if ran_out_of_memory(error):
                raise OutOfMemoryError(self._out_of_memory(batch)) from error
            if _is_ours(error):
                raise
            raise ForwardError(
                f"the model cannot take batch {batch.index}, {describe(data)}: "
                f"{one_line(error)}. Check --data and --transform, or say how to "
                "call the model with --forward file.py:function"
            ) from error


@dataclass(frozen=True)
class Subject:
    """A model at work: its BatchNorm layers, and how data go through it."""

    model: nn.Module
    layers: list[BNLayer]
    conditions: Conditions

    def forward(self, batch: Batch) -> Any:
        """The model's output for a batch. Inside `conditions.entered(model)`."""
        return self.conditions.run(self.model, self.conditions.moved(batch), batch)


class ForwardError(ModelError):
    """The model raised something on a batch."""


class OutOfMemoryError(ModelError):
    """The device has no memory left for what the model does."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is how torch, or Python, says that memory ran out; the CPU's has no type."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _is_ours(error: Exception) -> bool:
    """Whether bnaudit's own code raised it: then it is a bug, not the user's input."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE)
