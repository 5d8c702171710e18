"""How a batch goes through a model, and how two outputs are compared, where the user says so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor, nn

from bnaudit.errors import InputError
from bnaudit.targets.factories import load_factory
from bnaudit.targets.messages import kind_of, told

Forward = Callable[[nn.Module, Any], Any]
Compare = Callable[[Any, Any], float | dict[str, float]]


def build_forward(spec: str) -> Forward:
    """The function that `--forward spec` names, called as `fn(model, batch)`.

    InputError: no such function, or one that cannot be called with two arguments.
    """
    return _function(spec, "--forward", ("model", "batch"))


def build_compare(spec: str) -> Compare:
    """The function that `--compare spec` names, called as `fn(outputs_a, outputs_b)`.

    What it returns, a number or a mapping of numbers by name (0-d tensors too), comes out as float
    or dict of floats. InputError: no such function, one that cannot be called with two arguments,
    or, when it is called, one that returns anything else.
    """
    function = _function(spec, "--compare", ("outputs_a", "outputs_b"))

    def compare(outputs_a: Any, outputs_b: Any) -> float | dict[str, float]:
        try:
            result = function(outputs_a, outputs_b)
        except Exception as error:
            raise InputError(
                f"--compare {spec} raised {told(error)}; it is called with the model's outputs for "
                "one mini-batch, deployed and under mini-batch statistics"
            ) from error
        if isinstance(result, Mapping):
            return {str(key): _number(value, f"{spec} [{key}]") for key, value in result.items()}
        return _number(result, spec)

    return compare


def _function(spec: str, option: str, names: tuple[str, str]) -> Callable[..., Any]:
    function = load_factory(spec, option=option)
    try:
        inspect.signature(function).bind(*names)
    except TypeError as error:
        said = f"{spec.rpartition(':')[2]}{inspect.signature(function)}"
        raise InputError(
            f"{option} {spec} is called as fn({', '.join(names)}); this one is {said}"
        ) from error
    except ValueError:
        pass  # Python does not know the signature of some builtins.
    return function


def _number(value: Any, said: str) -> float:
    if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    raise InputError(
        f"--compare {said} returned {kind_of(value)}: it is to return a number, or a dict "
        "of numbers"
    )
