"""FrozenBN: train on with the statistics as constants.

Wu 2021 (arXiv:2105.07576), section 4: a network that trains its last epochs with its population
statistics in place of the mini-batch's has no train-test inconsistency left, which matters where
batches are small.

A frozen layer stays the module that it was, in `eval()` for good: `train()` no longer reaches it.
So its state dict, its parameters and their optimiser, hooks, autocast and `torch.compile` are as
before; γ and β go on learning (`requires_grad_(False)` on them holds those too).
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.nn.batch_group import BatchGroupNorm
from bnaudit.nn.conversion import Conversion, Replaced
from bnaudit.nn.replacing import shown

M = TypeVar("M", bound=nn.Module)


def freeze(model: nn.Module) -> Conversion:
    """Every BatchNorm layer of `model` keeps its statistics from now on, whatever `train()` says.

    In place. Layers that have no running statistics have nothing to keep, and go on as they are.
    Copies and pickles of the model are frozen too; a state dict knows nothing of it: freeze the
    model that loads it again. A layer that is frozen already is not listed again.

    Recalibrate before, not afterwards: what the weights learn from then on belongs to these very
    constants. bnaudit's `recalibrate` leaves frozen layers alone unless it is told otherwise.

    Raises `ValueError` where the model has no BatchNorm layer with running statistics.
    """
    layers = [(name, module) for name, module in model.named_modules() if _freezable(module)]
    if not layers:
        raise ValueError("frozen: the model has no BatchNorm layer with running statistics")
    held = []
    for name, layer in layers:
        if not is_frozen(layer):
            held.append(Replaced(name, shown(layer), f"{shown(layer)}, frozen"))
            hold(layer)
    return Conversion(model, tuple(held))


def unfreeze(model: nn.Module) -> Conversion:
    """What `freeze` did to the layers of `model` is undone; they take the model's own mode.

    Lists the layers that were frozen; where none was, nothing happens.
    """
    layers = [(name, module) for name, module in model.named_modules() if is_frozen(module)]
    mode = model.training  # read first: the model may be such a layer itself
    released = []
    for name, layer in layers:
        del vars(layer)["train"]
        layer.train(mode)
        released.append(Replaced(name, f"{shown(layer)}, frozen", shown(layer)))
    return Conversion(model, tuple(released))


def is_frozen(module: nn.Module) -> bool:
    """Whether `freeze` holds this layer in `eval()`."""
    train = vars(module).get("train")
    return isinstance(train, partial) and train.func is _stay_in_eval


def hold(layer: nn.Module) -> None:
    """Put one layer into `eval()` for good. What it contains, an activation, still follows."""
    vars(layer)["train"] = partial(_stay_in_eval, layer)  # a partial: copies and pickles follow
    layer.train(layer.training)


def _stay_in_eval(layer: M, mode: bool = True) -> M:
    type(layer).train(layer, mode)
    layer.training = False
    return layer


def _freezable(module: nn.Module) -> bool:
    return isinstance(module, (_BatchNorm, BatchGroupNorm)) and isinstance(
        module.running_mean, Tensor
    )


class FreezeAfter:
    """Freezes a model's BatchNorm layers for the last epochs of its training (Wu 2021, section 4).

    `epoch` counts from 0 and is the first that trains with frozen statistics. Call `step` at the
    beginning of every epoch:

        schedule = FreezeAfter(model, epoch=90)
        for epoch in range(100):
            model.train()
            schedule.step(epoch)

    `state_dict` and `load_state_dict` go into a checkpoint beside the optimiser's: loading freezes
    or unfreezes the model as it was. Raises `ValueError` for an epoch below 0.
    """

    def __init__(self, model: nn.Module, epoch: int) -> None:
        if not isinstance(epoch, int) or epoch < 0:
            raise ValueError(
                f"epoch, the first with frozen statistics, is a whole number from 0; got {epoch!r}"
            )
        self.epoch = epoch
        self.frozen = False
        self._model = model

    def step(self, epoch: int) -> None:
        """The epoch of this number begins."""
        self._become(epoch >= self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and whether the model is frozen."""
        return {"epoch": self.epoch, "frozen": self.frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; the model follows."""
        self.epoch = int(state["epoch"])
        self._become(bool(state["frozen"]))

    def _become(self, frozen: bool) -> None:
        if frozen == self.frozen:
            return
        if frozen:
            freeze(self._model)
        else:
            unfreeze(self._model)
        self.frozen = frozen
