"""The names and shapes of a model's tensors, without memory for their values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from bnaudit.errors import InputError
from bnaudit.targets.models import build_model

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor of a state dict, by its name."""


def outline_of(spec: str, args: Mapping[str, object]) -> Shapes:
    """The shapes in the state dict of the model that `--model spec` names, in its order.

    InputError: as `build_model`.
    """
    return shapes_of(outlined(spec, args))


def outlined(spec: str, args: Mapping[str, object]) -> nn.Module:
    """The model that `--model spec` names, its tensors on the meta device.

    So it takes milliseconds and no memory, and nothing is downloaded. The generator of random
    numbers is left as it was. InputError: as `build_model`.
    """
    with _quietly():
        try:
            with torch.device("meta"), _Uninitialised():
                return build_model(spec, args)
        except InputError:  # RegNet's builders calculate their widths with tensors
            with _Uninitialised(), _AllocatedOnMeta():
                return build_model(spec, args)


def shapes_of(model: nn.Module) -> Shapes:
    """The shapes in a model's state dict, without lazy tensors, which have none yet."""
    return {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor) and not is_lazy(value)
    }


def torchvision_specs() -> list[str]:
    """`torchvision:NAME` of every model that torchvision has."""
    zoo: Any = torchvision.models  # whose functions are not typed as exports
    return [f"torchvision:{name}" for name in zoo.list_models()]


def timm_families() -> dict[str, list[str]]:
    """`timm:NAME` of every model that timm has, by the module that it is defined in.

    Empty where timm is not installed.
    """
    if find_spec("timm") is None:
        return {}
    import timm

    families = {module: timm.list_models(module=module) for module in timm.list_modules()}
    return {
        module: [f"timm:{name}" for name in names] for module, names in families.items() if names
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings (of a thousand models some are deprecated), and without using up numbers."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


class _Uninitialised(TorchFunctionMode):
    """Leaves out every in-place operation, so all initialisation: an outline has no values."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class _AllocatedOnMeta(TorchFunctionMode):
    """Allocates parameters and buffers on the meta device, and calculates all else for real."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
