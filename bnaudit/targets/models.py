"""What a user names with `--model` -> a model, built without downloading anything."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torchvision.models
from torch import nn

from bnaudit.errors import InputError
from bnaudit.targets.factories import call_factory, load_factory, parameters_of
from bnaudit.targets.hugging_face import SCHEME, build_from_folder
from bnaudit.targets.messages import did_you_mean, kind_of, near

_OPTION = "--model"
_ZOO: Any = torchvision.models  # whose functions are not typed as exports
_FORMS = "torchvision:NAME, timm:NAME, hf:DIR, path/file.py:NAME or package.module:NAME"

# What a torchvision builder would fetch by default, or turn into integer arithmetic.
_OFFLINE: Mapping[str, object] = {"weights": None, "weights_backbone": None, "quantize": False}


def build_model(spec: str, args: Mapping[str, object]) -> nn.Module:
    """The model that `--model spec` names, on the CPU, as its builder leaves it.

    `torchvision:NAME` and `timm:NAME` are built with random weights, so that nothing is downloaded,
    unless `args` (from `--model-arg`) name weights. `path/file.py:NAME` and `package.module:NAME`
    are called with `args`; NAME may be a function or a class that gives a module, or a module.
    `hf:DIR` is what a folder of transformers describes (`build_from_folder`), without its weights.

    InputError: an unknown name (the message has the nearest ones), timm not installed, arguments
    that the builder does not take, a builder that raises or returns anything but a module.
    """
    source, colon, name = spec.partition(":")
    if not colon and not spec.endswith(".py"):
        known = name_hint(spec)
        raise InputError(f"{_OPTION} {spec}: write it as {_FORMS}{known}")
    if source == "torchvision":
        return _build_torchvision(spec, name, args)
    if source == "timm":
        return _build_timm(spec, name, args)
    if source == SCHEME:
        return _module(build_from_folder(spec, args), spec)
    target = load_factory(spec, option=_OPTION)
    if isinstance(target, nn.Module):
        if args:
            raise InputError(f"{_OPTION}-arg {next(iter(args))}: {spec} is a model already")
        return target
    if str(getattr(target, "__module__", "")).startswith("torchvision."):
        args = {**_offline_args(target), **args}
    return _module(call_factory(target, args, option=_OPTION, spec=spec), spec)


def name_hint(name: str) -> str:
    """`; did you mean torchvision:resnet50?` for a model's bare name; "" where none is near."""
    names = near(name, _ZOO.list_models(), count=1)
    return f"; did you mean torchvision:{names[0]}?" if names else ""


def _build_torchvision(spec: str, name: str, args: Mapping[str, object]) -> nn.Module:
    names = _ZOO.list_models()
    if name.lower() not in names:
        hint = did_you_mean(name, names) or "; torchvision.models.list_models() lists its names"
        raise InputError(f"{_OPTION} {spec}: torchvision has no model called {name}{hint}")
    builder = _ZOO.get_model_builder(name)
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce a future initialisation; a checkpoint replaces it anyway.
        warnings.filterwarnings("ignore", "The default weight initialization", FutureWarning)
        return _module(
            call_factory(builder, {**_offline_args(builder), **args}, option=_OPTION, spec=spec),
            spec,
        )


def _offline_args(builder: Callable[..., Any]) -> dict[str, object]:
    parameters = parameters_of(builder) or {}
    return {name: value for name, value in _OFFLINE.items() if name in parameters}


def _build_timm(spec: str, name: str, args: Mapping[str, object]) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise InputError(
            f"{_OPTION} {spec}: timm is not installed: pip install 'bnaudit[timm]'"
        ) from error
    # Before create_model sees the name: it would fetch the configuration of hf-hub:NAME.
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models()) or "; timm.list_models() lists its names"
        raise InputError(f"{_OPTION} {spec}: timm has no model called {name}{hint}")
    wanted = {"model_name": name, "pretrained": False, **args}
    return _module(call_factory(timm.create_model, wanted, option=_OPTION, spec=spec), spec)


def _module(built: object, spec: str) -> nn.Module:
    if isinstance(built, nn.Module):
        return built
    raise InputError(f"{_OPTION} {spec} returned {_instead_of_a_module(built)}")


def _instead_of_a_module(built: object) -> str:
    kind = kind_of(built)
    if built is None:
        return f"{kind}: is its `return` missing?"
    if isinstance(built, type):
        return f"{kind}, not a model: return {built.__name__}()"
    if isinstance(built, Mapping):
        return (
            f"{kind}, not a model: return the torch.nn.Module; its state_dict is what the "
            "checkpoint file gives"
        )
    if isinstance(built, tuple | list):
        inside = ", ".join(type(item).__name__ for item in built[:4])
        return f"{kind} ({inside}), not a model: return the torch.nn.Module alone"
    return f"{kind}, not a torch.nn.Module"
