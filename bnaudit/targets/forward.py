"""How a batch goes through a model, and how two outputs are compared, where the user says so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor, nn

from bnaudit.errors import InputError
from bnaudit.targets.factories import load_factory
from bnaudit.targets.messages import kind_of

Forward = Callable[[nn.Module, Any], Any]
Compare = Callable[[Any, Any], float | dict[str, float]]

LABELS = ("label", "labels", "target", "targets", "y")
"""The keys of a batch that are not the model's input."""


def build_forward(spec: str | None) -> Forward:
    """The function that `--forward spec` names, called as `fn(model, batch)`; None: the default.

    InputError: no such function, or one that cannot be called with two arguments.
    """
    if spec is None:
        return default_forward
    return _function(spec, "--forward", ("model", "batch"))


def default_forward(model: nn.Module, batch: Any) -> Any:
    """What nearly every model takes.

    A tensor goes in as it is; of a tuple or list the first item; of a mapping what is left without
    its labels (`LABELS`): a single value as it is, several as keywords. InputError: anything else.
    """
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, tuple | list) and batch:
        return model(batch[0])
    if isinstance(batch, Mapping):
        inputs = {key: value for key, value in batch.items() if key not in LABELS}
        if len(inputs) == 1:
            return model(next(iter(inputs.values())))
        if inputs:
            return model(**inputs)
        raise InputError(
            f"a batch has labels only ({', '.join(map(str, batch))}): say what goes into the model "
            "with --forward path/file.py:fn, called as fn(model, batch)"
        )
    kind = "an empty sequence" if isinstance(batch, tuple | list) else kind_of(batch)
    raise InputError(
        f"a batch is {kind}: say what goes into the model with --forward path/file.py:fn, called "
        "as fn(model, batch)"
    )


def build_compare(spec: str) -> Compare:
    """The function that `--compare spec` names, called as `fn(outputs_a, outputs_b)`.

    What it returns, a number or a mapping of numbers by name (0-d tensors too), comes out as float
    or dict of floats. InputError: no such function, one that cannot be called with two arguments,
    or, when it is called, one that returns anything else.
    """
    function = _function(spec, "--compare", ("outputs_a", "outputs_b"))

    def compare(outputs_a: Any, outputs_b: Any) -> float | dict[str, float]:
        result = function(outputs_a, outputs_b)
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
