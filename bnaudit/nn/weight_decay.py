"""Weight decay of its own for γ and β, and γ towards 1 instead of 0.

Summers 2020, section on weight decay: γ and β of the normalisation layers are regularised apart
from the weights, γ about 1 in the authors' code, where a layer does nothing but normalise; whether
it helps depends on the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    gamma_decay: float,
    beta_decay: float,
    gamma_target: float = 0.0,
) -> list[dict[str, Any]]:
    """The parameters of `model` in groups for an optimiser of PyTorch, each with its weight decay.

    "gamma" and "beta" hold the weights and biases of the normalisation layers (Batch, Instance,
    Group, Layer and RMS Norm, and any module with a `running_mean`), "weights" everything else,
    other biases included. Every parameter stands in one group, under "name"; empty groups are left
    out.

        groups = parameter_groups(
            model, weight_decay=5e-4, gamma_decay=5e-4, beta_decay=0.0, gamma_target=1.0
        )
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        decay_towards_target(optimizer)

    Weight decay of PyTorch draws to 0. With another `gamma_target` the group "gamma" has the weight
    decay 0, and `decay_towards_target(optimizer)` does it; without that call γ does not decay.
    """
    gamma, beta = [], []
    for module in model.modules():
        if _normalises(module):
            gamma += _own(module, "weight")
            beta += _own(module, "bias")
    special = {id(parameter) for parameter in gamma + beta}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in special]
    groups: list[dict[str, Any]] = [
        {"name": "weights", "params": weights, "weight_decay": weight_decay},
        {"name": "gamma", "params": _once(gamma), "weight_decay": gamma_decay},
        {"name": "beta", "params": _once(beta), "weight_decay": beta_decay},
    ]
    if gamma_target != 0:
        groups[1] |= {"weight_decay": 0.0, "target_decay": gamma_decay, "target": gamma_target}
    return [group for group in groups if group["params"]]


def decay_towards_target(optimizer: Optimizer) -> TargetDecay:
    """From now on each step of `optimizer` decays the groups that have a target towards it.

    While a step runs, the optimiser sees γ − target in the place of γ and decays that by its own
    rule, whichever it has: added to the gradient (SGD, Adam) or apart from it (AdamW). Gradients
    are the same for both, so nothing else changes, except for optimisers that use the norm of the
    parameters (LARS, LAMB). A closure is called with γ itself, and so are post-hooks of the step
    that are registered after this call. γ is kept to the precision that its dtype has near the
    target. After a step that raises, an interrupted one too, γ is what it was before the step.

    Works with GradScaler and learning-rate schedulers, made before or afterwards; the optimiser's
    state dict is as before, the target in its groups. `remove()` of what comes back ends it. Raises
    `ValueError` where no group has a target, and for an optimiser that decays towards one already.
    """
    if not any("target" in group for group in optimizer.param_groups):
        raise ValueError(
            "no parameter group has a target: make them by parameter_groups with a gamma_target "
            "other than 0"
        )
    running = getattr(optimizer.step, "target_decay", None)
    if isinstance(running, TargetDecay) and not running.removed:
        raise ValueError("the optimiser decays towards its targets already: remove() that first")
    decay = TargetDecay(optimizer)
    step = optimizer.step

    @wraps(step)
    def stepped(_: Optimizer, *args: Any, **kwargs: Any) -> Any:
        return decay.step(step, *args, **kwargs)

    vars(stepped)["target_decay"] = decay
    # A method, for a scheduler made afterwards wraps it as one.
    optimizer.step = MethodType(stepped, optimizer)  # type: ignore[method-assign]
    return decay


class TargetDecay:
    """What `decay_towards_target` set up: γ − target in the place of γ while a step runs."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.removed = False
        self._optimizer = optimizer
        self._own: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self._handles = (
            optimizer.register_step_pre_hook(lambda *_: self._shift()),
            optimizer.register_step_post_hook(lambda *_: self._put_back()),
        )

    def remove(self) -> None:
        """The groups with a target do not decay any more."""
        self.removed = True
        for handle in self._handles:
            handle.remove()

    def step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One step of the optimiser, `step(*args, **kwargs)`, and what it returns."""
        if self.removed:
            return step(*args, **kwargs)
        if args and args[0] is not None:
            args = (self._with_own(args[0]), *args[1:])
        elif kwargs.get("closure") is not None:
            kwargs["closure"] = self._with_own(kwargs["closure"])
        try:
            return step(*args, **kwargs)
        finally:
            self._undo()

    def _with_own(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def called() -> Any:
            self._put_back()
            value = closure()
            self._shift()
            return value

        return called

    @torch.no_grad()
    def _shift(self) -> None:
        if self._own:  # the pre-hooks run twice where a subclass's step calls its parent's
            return
        for group in self._groups():
            group["weight_decay"] = group["target_decay"]
            for parameter in group["params"]:
                own = parameter.clone()
                shifted = own - group["target"]
                self._own[parameter] = own, shifted  # first: whatever interrupts, it is known
                parameter.copy_(shifted)

    @torch.no_grad()
    def _put_back(self) -> None:
        """γ, moved as far as γ − target was: where that did not move, γ to the bit."""
        for parameter, (own, shifted) in list(self._own.items()):
            parameter.copy_(own + (parameter - shifted))
            del self._own[parameter]
        self._undo()

    @torch.no_grad()
    def _undo(self) -> None:
        """γ as it was where it has not been put back, and no weight decay between steps."""
        for parameter, (own, _) in self._own.items():
            parameter.copy_(own)
        self._own.clear()
        for group in self._groups():
            group["weight_decay"] = 0.0

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for group in self._optimizer.param_groups if "target" in group)


_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def _normalises(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or "running_mean" in module._buffers


def _own(module: nn.Module, name: str) -> list[nn.Parameter]:
    parameter = module._parameters.get(name)
    return [] if parameter is None else [parameter]


def _once(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())
