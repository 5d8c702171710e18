"""Which modules of a model are BatchNorm layers, and what is known about each before any data."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin

from bnaudit.errors import ModelError
from bnaudit.nn.batch_group import BatchGroupNorm
from bnaudit.nn.example_weighing import ExampleWeighingBatchNorm
from bnaudit.nn.frozen import is_frozen
from bnaudit.nn.parts import NormThenParts

_COMPILED = re.compile(r"(^|\.)_orig_mod(?=\.|$)")

Role = Literal["estimated", "batch-dependent", "not-audited"]


@dataclass(eq=False)
class BNLayer:
    """One BatchNorm layer of a model.

    `role`: "estimated" normalises by running statistics at inference; "batch-dependent" has none
    and normalises by the batch (`track_running_stats=False`); "not-audited" is listed only, `note`
    says why. `verified` is False until a module with a forward that bnaudit does not know has been
    checked against its own output; one that is `trusted`, a subclass of PyTorch's BatchNorm, is
    measured even where that fails (it may contain an activation). `frozen`: the statistics are
    constants that training does not update.

    `channels` counts the statistics: C. Where `pooled` neighbouring channels of the input share one
    (Batch/Group Norm), what is said of a channel here and in every figure is of such a group.
    """

    name: str
    module: nn.Module
    kind: str
    role: Role
    channels: int
    eps: float | None
    momentum: float | None
    frozen: bool
    verified: bool
    trusted: bool = True
    aliases: tuple[str, ...] = ()
    note: str | None = None
    channel_axis: int = 1
    eps_source: Literal["module", "probed"] = "module"
    probed_gamma: Tensor | None = None
    pooled: int = 1

    @property
    def affine(self) -> bool:
        """Whether the layer scales its normalised activation by a weight."""
        if self.probed_gamma is not None:
            return bool((self.probed_gamma - 1).abs().max() > 1e-4)
        return isinstance(getattr(self.module, "weight", None), Tensor)

    @property
    def estimated(self) -> tuple[Tensor, Tensor]:
        """(running_mean, running_var), each (C,), the layer's own tensors."""
        module = cast(Any, self.module)
        return module.running_mean, module.running_var

    def gamma(self) -> Tensor:
        """The affine weight γ in float64 on the CPU, (C,); ones where the layer has none.

        The root mean square over channels that share statistics: the output shift weighs by γ².
        """
        weight = getattr(self.module, "weight", None)
        if self.probed_gamma is not None:
            return self.probed_gamma
        if isinstance(weight, Tensor):
            gamma = weight.detach().to("cpu", torch.float64).flatten()
            if self.pooled == 1:
                return gamma
            return gamma.reshape(-1, self.pooled).square().mean(1).sqrt()
        return torch.ones(self.channels, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class Adapter:
    """How one kind of module is read. `matches` decides; the first adapter that matches is used.

    `pooled`: how many channels share one statistic.
    """

    matches: Callable[[nn.Module], bool]
    role: Callable[[nn.Module], Role]
    frozen: bool | None = None  # None: frozen unless the module has a momentum or a counter
    verified: Callable[[nn.Module], bool] = lambda module: True
    trusted: bool = True
    note: str | None = None
    kind: Callable[[nn.Module], str] = field(default=lambda module: type(module).__name__)
    pooled: Callable[[nn.Module], int] = lambda module: 1


def _has_statistics(module: nn.Module) -> bool:
    buffers = module._buffers
    return all(isinstance(buffers.get(key), Tensor) for key in ("running_mean", "running_var"))


def _torch_role(module: nn.Module) -> Role:
    # eval() normalises by the buffers wherever both exist, whatever track_running_stats says
    return "estimated" if _has_statistics(module) else "batch-dependent"


_KNOWN_FORWARDS = (
    _BatchNorm.forward,
    nn.SyncBatchNorm.forward,
    NormThenParts.forward,  # of our own layers in nn
)


def _has_own_forward(module: nn.Module) -> bool:
    return type(module).forward not in _KNOWN_FORWARDS


def _channels_of_a_group(module: nn.Module) -> int:
    return cast(BatchGroupNorm, module).num_features // cast(BatchGroupNorm, module).groups


def _weighs_examples(module: nn.Module) -> bool:
    return isinstance(module, ExampleWeighingBatchNorm) and module.alpha > 0


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized"))


def _is_torchvision_frozen(module: nn.Module) -> bool:
    return any(
        base.__module__ == "torchvision.ops.misc" and base.__name__ == "FrozenBatchNorm2d"
        for base in type(module).__mro__
    )


ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        lambda m: isinstance(m, _InstanceNorm) and _has_statistics(m),
        lambda m: "not-audited",
        note="InstanceNorm: its population is one sample, not the data set",
    ),
    Adapter(
        lambda m: _is_quantized(m) and _has_statistics(m),
        lambda m: "not-audited",
        note="quantised: measure the floating-point model instead",
    ),
    Adapter(
        lambda m: _weighs_examples(m) and _has_statistics(m),
        lambda m: "not-audited",
        note="example weighing: it normalises by the estimates and each example's own moments; "
        "measure and recalibrate the model as it was before, or with alpha = 0: the checkpoint is "
        "the same",
    ),
    Adapter(
        lambda m: isinstance(m, _BatchNorm),
        _torch_role,
        frozen=False,
        verified=lambda m: not _has_own_forward(m),
    ),
    Adapter(
        # one example a group and no statistics: Group Norm, whose outputs do not depend on a batch
        lambda m: isinstance(m, BatchGroupNorm) and (_has_statistics(m) or m.examples != 1),
        _torch_role,
        frozen=False,
        verified=lambda m: not _has_own_forward(m),
        trusted=False,
        pooled=_channels_of_a_group,
    ),
    Adapter(_is_torchvision_frozen, lambda m: "estimated", frozen=True),
    Adapter(_has_statistics, lambda m: "estimated", verified=lambda m: False, trusted=False),
)
"""In order. The last one takes any module with both buffers and lets the first batch decide."""


def find_layers(model: nn.Module) -> list[BNLayer]:
    """All BatchNorm layers of `model` in registration order, each module once.

    A module registered under several names appears under its first, the others in `aliases`. Names
    are those of the model inside a compiled wrapper. Raises `ModelError` for a lazy layer that
    nothing has materialised: it has no statistics yet.
    """
    found: dict[int, BNLayer] = {}
    for full_name, module in model.named_modules(remove_duplicate=False):
        _refuse_lazy(full_name, module)
        name = _COMPILED.sub("", full_name).strip(".") or type(module).__name__
        if id(module) in found:
            layer = found[id(module)]
            if name != layer.name and name not in layer.aliases:
                layer.aliases = (*layer.aliases, name)
            continue
        layer_or_none = _read(name, module)
        if layer_or_none is not None:
            found[id(module)] = layer_or_none
    return list(found.values())


def _refuse_lazy(name: str, module: nn.Module) -> None:
    """A lazy layer would take its shape from our batch, and the model would not be left alone."""
    if isinstance(module, LazyModuleMixin) and cast(Any, module).has_uninitialized_params():
        raise ModelError(
            f"layer {name} is a {type(module).__name__} that has not seen an input yet: run one "
            "forward through the model, or load a checkpoint into it, before you measure it"
        )


def _read(name: str, module: nn.Module) -> BNLayer | None:
    adapter = next((a for a in ADAPTERS if a.matches(module)), None)
    if adapter is None:
        return None
    role = adapter.role(module)
    momentum = getattr(module, "momentum", None)
    frozen = adapter.frozen
    if frozen is None:
        frozen = momentum is None and "num_batches_tracked" not in module._buffers
    eps = getattr(module, "eps", None)
    return BNLayer(
        name=name,
        module=module,
        kind=adapter.kind(module),
        role=role,
        channels=_channels(module),
        eps=_number(eps),
        momentum=_number(momentum),
        frozen=frozen or is_frozen(module),
        verified=adapter.verified(module),
        trusted=adapter.trusted,
        note=adapter.note,
        pooled=adapter.pooled(module),
    )


def _number(value: object) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    return float(value) if isinstance(value, (int, float)) else None


def _channels(module: nn.Module) -> int:
    mean = module._buffers.get("running_mean")
    if isinstance(mean, Tensor):
        return mean.numel()
    return int(getattr(module, "num_features", 0))


def counter(layer: BNLayer) -> int | None:
    """`num_batches_tracked` as stored, None where the layer has no counter."""
    value = layer.module._buffers.get("num_batches_tracked")
    return int(value) if isinstance(value, Tensor) else None


def channels_first(layer: BNLayer, x: Tensor) -> Tensor:
    """The layer's input as (N, C, *), detached, whatever its axis of channels; a view.

    Channels that share a statistic are one, whose values are those of all of them.
    """
    x = x.detach()
    if layer.pooled > 1:
        return x.reshape(x.shape[0], layer.channels, -1)
    return x if layer.channel_axis == 1 else x.movedim(layer.channel_axis, 1)
