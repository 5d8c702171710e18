"""Weight decay of its own for γ and β, and γ towards 1 instead of 0.

Summers 2020, section on weight decay: γ and β of the normalisation layers are regularised apart
from the weights, γ about 1 in the authors' code, where a layer does nothing but normalise; whether
it helps depends on the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


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
    parameters (LARS, LAMB). A closure is called with γ itself. γ is kept to the precision that its
    dtype has near the target.

    Works with GradScaler and learning-rate schedulers; the optimiser's state dict is as before,
    the target in its groups. `remove()` of what comes back ends it. Raises `ValueError` where no
    group has a target.
    """
    if not any("target" in group for group in optimizer.param_groups):
        raise ValueError(
            "no parameter group has a target: make them by parameter_groups with a gamma_target "
            "other than 0"
        )
    shifted = _Shifted(optimizer)
    return TargetDecay(
        optimizer.register_step_pre_hook(shifted.before_step),
        optimizer.register_step_post_hook(shifted.after_step),
    )


class TargetDecay:
    """What `decay_towards_target` set up."""

    def __init__(self, *handles: RemovableHandle) -> None:
        self._handles = handles

    def remove(self) -> None:
        """The groups with a target do not decay any more."""
        for handle in self._handles:
            handle.remove()


class _Shifted:
    """γ − target in the place of γ, between the two hooks."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._own: dict[Tensor, tuple[Tensor, Tensor]] = {}

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._put_back()  # of a step that failed
        self._shift()
        if kwargs.get("closure") is not None:
            return args, {**kwargs, "closure": self._with_own(kwargs["closure"])}
        if len(args) > 1 and args[1] is not None:  # the first is the optimiser
            return (args[0], self._with_own(args[1]), *args[2:]), kwargs
        return args, kwargs

    def after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._put_back()

    def _with_own(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def called() -> Any:
            self._put_back()
            try:
                return closure()
            finally:
                self._shift()

        return called

    @torch.no_grad()
    def _shift(self) -> None:
        for group in self._groups():
            group["weight_decay"] = group["target_decay"]
            for parameter in group["params"]:
                own = parameter.clone()
                parameter.sub_(group["target"])
                self._own[parameter] = own, parameter.clone()

    @torch.no_grad()
    def _put_back(self) -> None:
        """γ, moved as far as γ − target was: where that did not move, γ to the bit."""
        for parameter, (own, shifted) in self._own.items():
            parameter.copy_(own + (parameter - shifted))
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
