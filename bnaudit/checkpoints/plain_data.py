"""The plain data that training scripts put beside weights, as names an unpickler may resolve.

`torch.load(weights_only=True)` resolves a name in a pickle to an object from an allow-list, and may
then call that object with arguments of the file's choosing. So what stands on our list is either a
type whose constructor only holds data, or a stand-in of ours that does: paths become pure paths,
NumPy arrays and scalars are rebuilt from checked bytes (NumPy's own functions trust the flags that
a pickled dtype brings along), a class that is merely mentioned becomes its name.
"""

from __future__ import annotations

import argparse
import builtins
import datetime
import decimal
import math
import pathlib
import re
import types
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch
from torch.torch_version import TorchVersion

_DTYPE_CODE = re.compile(r"\|?[?biufcSUVMmO][0-9]{0,9}")


@dataclass(frozen=True)
class TypeName:
    """A class that the file mentions and nobody may call: only its dotted name."""

    name: str

    def __call__(self, *_: object) -> object:
        """Refuse: a call would make the name more than a name."""
        raise UnpicklingError(f"calls {self.name}, which is not plain data")


class PlainDtype:
    """A NumPy dtype as a pickle describes it: a code such as "f4" and a byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise UnpicklingError(f"not a NumPy dtype code: {str(code)[:40]!r}")
        self.code = code.lstrip("|")
        self.byteorder = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # Only the byte order is taken: the flags in the rest decide what NumPy reads as pointers.
        if state[1] in ("<", ">"):
            self.byteorder = state[1]

    def resolve(self) -> np.dtype[Any]:
        """The dtype; of a structured one the bytes are left, of dates and durations the counts."""
        code = "i8" if self.code[0] in "mM" else self.code
        return np.dtype(code).newbyteorder(cast(Any, self.byteorder))


class PlainArray(np.ndarray[Any, Any]):
    """A NumPy array rebuilt from a pickle; its size and type are checked against its bytes."""

    def __new__(cls, *_: object) -> PlainArray:
        """Make an empty array, whatever a file asks for: `__setstate__` brings shape and data."""
        return super().__new__(cls, (0,))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, described, fortran, raw = state
        if not isinstance(described, PlainDtype) or not isinstance(shape, tuple):
            raise UnpicklingError("a NumPy array without a plain shape and dtype")
        dtype = described.resolve()
        size = math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize)
        if type(raw) is not (list if dtype.hasobject else bytes) or len(raw) != size:
            raise UnpicklingError("a NumPy array whose data do not fill its shape")
        super().__setstate__(cast(Any, (1, shape, dtype, bool(fortran), raw)))


def _rebuild_array(*_: object) -> PlainArray:
    return PlainArray()


def _rebuild_scalar(described: object, raw: object = b"") -> object:
    if not isinstance(described, PlainDtype):
        raise UnpicklingError("a NumPy scalar without a plain dtype")
    dtype = described.resolve()
    if dtype.hasobject:
        return raw
    if not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        raise UnpicklingError("a NumPy scalar whose bytes do not fill it")
    # An empty string has no bytes to read an item from.
    return np.frombuffer(raw, dtype)[0] if raw else dtype.type()


def _empty_dict(*_: object) -> dict[Any, Any]:
    # A defaultdict's factory is not data; the unpickler fills the items in.
    return {}


def _empty_bytes(*_: object) -> bytes:
    # Below protocol 3 a pickle spells b"" as a call; other bytes are encoded text.
    return b""


def _both_names(module: str, name: str) -> list[str]:
    """A name of NumPy's core, as NumPy 1 and NumPy 2 write it."""
    return [f"numpy.core.{module}.{name}", f"numpy._core.{module}.{name}"]


def _plain_names() -> dict[str, Any]:
    names: dict[str, Any] = {
        "argparse.Namespace": argparse.Namespace,
        "types.SimpleNamespace": types.SimpleNamespace,
        "collections.OrderedDict": OrderedDict,
        "collections.Counter": Counter,
        "collections.defaultdict": _empty_dict,
        "builtins.bytes": _empty_bytes,
        "builtins.set": set,
        "builtins.frozenset": frozenset,
        "builtins.complex": complex,
        "builtins.range": range,
        "builtins.slice": slice,
        "decimal.Decimal": decimal.Decimal,
        "torch.torch_version.TorchVersion": TorchVersion,
        "numpy.ndarray": PlainArray,
        "numpy.dtype": PlainDtype,
    }
    for name in ("date", "datetime", "time", "timedelta", "timezone"):
        names[f"datetime.{name}"] = getattr(datetime, name)
    for name, pure in (("Posix", pathlib.PurePosixPath), ("Windows", pathlib.PureWindowsPath)):
        # Python 3.13 alone calls the module pathlib._local.
        for module in ("pathlib", "pathlib._local"):
            names[f"{module}.{name}Path"] = names[f"{module}.Pure{name}Path"] = pure
    for full in _both_names("multiarray", "_reconstruct"):
        names[full] = _rebuild_array
    for full in _both_names("multiarray", "scalar"):
        names[full] = _rebuild_scalar
    # Lightning's hyperparameters: a dict whose items are also attributes.
    for module in (
        "pytorch_lightning.utilities.parsing",
        "lightning_fabric.utilities.data",
        "lightning.fabric.utilities.data",
    ):
        names[f"{module}.AttributeDict"] = dict
    mentioned = [f"builtins.{kind.__name__}" for kind in (bool, dict, float, int, list, str, tuple)]
    for bits in (8, 16, 32, 64):
        mentioned += [f"numpy.int{bits}", f"numpy.uint{bits}", f"numpy.float{max(bits, 16)}"]
    for full in [*mentioned, "numpy.bool_", "numpy.bool"]:
        names[full] = TypeName(full)
    return names


def _name_of(entry: Callable[..., Any] | tuple[Callable[..., Any], str]) -> str:
    if isinstance(entry, tuple):
        return entry[1]
    return f"{entry.__module__}.{getattr(entry, '__qualname__', '')}"


@contextmanager
def plain_data_allowed() -> Iterator[None]:
    """Inside, `torch.load(weights_only=True)` also takes the plain data of this module.

    torch keeps one list of allowed names for the whole process. It is put back as it was at the
    end; what a caller had allowed stays allowed inside, save for names that are also ours.
    """
    ours = _plain_names()
    before = torch.serialization.get_safe_globals()
    kept = [entry for entry in before if _name_of(entry) not in ours]
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals([*kept, *((obj, name) for name, obj in ours.items())])
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def real_data(content: Any) -> Any:
    """`content` with this module's stand-ins replaced by what they stand for, so it can be saved.

    Dicts, lists and namespaces are changed in place, and keep who shares them. Pure paths stay.
    """
    return _real(content, {})


def _real(value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)][0]
    real = value
    # The original is kept alive with its replacement: ids of dead objects are given again.
    done[id(value)] = (real, value)
    if isinstance(value, PlainArray):
        real = np.array(value)
        if real.dtype.hasobject:
            flat = [_real(item, done) for item in value.ravel().tolist()]
            real = np.fromiter(flat, object, len(flat)).reshape(value.shape)
    elif isinstance(value, PlainDtype):
        real = value.resolve()
    elif isinstance(value, TypeName):
        module, _, name = value.name.rpartition(".")
        real = getattr(builtins, name) if module == "builtins" else getattr(np, name, np.bool_)
    elif isinstance(value, dict):
        for key in list(value):
            value[key] = _real(value[key], done)
    elif isinstance(value, list):
        value[:] = [_real(item, done) for item in value]
    elif type(value) in (tuple, set, frozenset):
        items = [_real(item, done) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            real = type(value)(items)
    elif isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        for name, item in list(vars(value).items()):
            setattr(value, name, _real(item, done))
    done[id(value)] = (real, value)
    return real
