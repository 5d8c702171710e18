"""Reading a checkpoint's pickle without running anything of it.

Where the tensors of a file lie is told by its pickle, which may also hold objects of any class.
Here no name in it is ever resolved: containers and the functions that rebuild tensors have
stand-ins of ours, everything else becomes a `Stub`, which keeps what it is given and does nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from bnaudit.checkpoints.dtypes import DTYPES, Dtype
from bnaudit.checkpoints.sealed import Sealed
from bnaudit.checkpoints.stubs import (
    Entries,
    OddTensor,
    Pickled,
    StorageRef,
    Stub,
    TensorRef,
)

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}
_DICTS = frozenset(
    f"{module}.{name}"
    for module, name in (
        ("collections", "OrderedDict"),
        ("builtins", "dict"),
        ("__builtin__", "dict"),
    )
)
# How functions that rebuild tensors begin: sparse ones, quantised ones, …
_REBUILDERS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
# Tensor types whose bytes are their values: a subclass may give its storage another meaning.
_PLAIN_TYPES = frozenset(
    {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
)


@dataclass(frozen=True)
class _StorageType(Sealed):
    dtype: Dtype


class _Rebuild(Sealed):
    """A stand-in for a function that rebuilds tensors; a file can call it and nothing else."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)


# The one written in C allots memory for any memo index that a file names; this one does not.
class _StubUnpickler(pickle._Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        # Names that Python 2 wrote may be in any encoding; they only have to survive.
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.tensors: list[TensorRef] = []
        self.storages: list[StorageRef] = []
        self.used: set[int] = set()
        self.kept: list[object] = []
        self._rebuild = {
            "torch._utils._rebuild_tensor": _Rebuild(self._tensor),
            "torch._utils._rebuild_tensor_v2": _Rebuild(self._tensor),
            "torch._utils._rebuild_tensor_v3": _Rebuild(self._tensor_of_dtype),
            "torch._utils._rebuild_parameter": _Rebuild(self._parameter),
            "torch._utils._rebuild_parameter_with_state": _Rebuild(self._parameter),
            "torch._tensor._rebuild_from_type_v2": _Rebuild(self._from_type),
        }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self._rebuild:
            return self._rebuild[full]
        if full in _DICTS:
            return Entries
        if module.partition(".")[0] == "torch" and name in _STORAGES:
            return _StorageType(DTYPES[_STORAGES[name]])
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if full == "torch.Size":
            return _Rebuild(tuple)
        base = OddTensor if full.startswith(_REBUILDERS) else Stub
        return type("Stub", (base,), {"named": full})

    def persistent_load(self, pid: Any) -> Any:
        kind, *data = pid
        if _text(kind) == "module":  # a legacy file brings the class's source along
            return data[0]
        type_, key, location, numel, *view = data
        if not isinstance(type_, _StorageType) or not _counts(numel):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        offset = view[0][1] if view and view[0] else 0
        if not _counts(offset):
            raise pickle.UnpicklingError("a view of a storage that begins nowhere")
        storage = StorageRef(str(_text(key)), type_.dtype, str(_text(location)), numel, offset)
        self.storages.append(storage)
        return storage

    def _tensor(
        self,
        storage: object,
        offset: object,
        size: object,
        stride: object,
        _grad: object = False,
        _hooks: object = None,
        metadata: object = None,
    ) -> object:
        return self._refer(storage, None, offset, size, stride, metadata)

    def _tensor_of_dtype(
        self,
        storage: object,
        offset: object,
        size: object,
        stride: object,
        _grad: object,
        _hooks: object,
        dtype: object,
        metadata: object = None,
    ) -> object:
        if not isinstance(dtype, Dtype):
            raise pickle.UnpicklingError("a tensor without a dtype")
        return self._refer(storage, dtype, offset, size, stride, metadata)

    def _refer(
        self,
        storage: object,
        dtype: Dtype | None,
        offset: object,
        size: object,
        stride: object,
        metadata: object,
    ) -> TensorRef:
        if not isinstance(storage, StorageRef) or not isinstance(offset, int) or offset < 0:
            raise pickle.UnpicklingError("a tensor without a storage")
        sizes, strides = _lengths(size), _lengths(stride)
        if len(sizes) != len(strides):
            raise pickle.UnpicklingError("a tensor whose strides do not fit its shape")
        of = dtype or storage.dtype
        start = storage.view_offset * storage.dtype.itemsize + offset * of.itemsize
        tensor = TensorRef(storage, of, start, sizes, strides, plain=not metadata)
        self.used.add(id(storage))
        self.tensors.append(tensor)
        return tensor

    def _parameter(self, data: object, *rest: object) -> object:
        self.kept.extend(rest)
        return data

    def _from_type(self, function: object, type_: object, args: object, state: object) -> object:
        if not isinstance(function, _Rebuild) or not isinstance(args, tuple):
            return OddTensor(function, type_, args, state)
        self.kept.append(state)
        tensor = function(*args)
        plain = isinstance(type_, type) and getattr(type_, "named", None) in _PLAIN_TYPES
        return tensor if plain else OddTensor(tensor)


def read_stubs(file: BinaryIO) -> Pickled:
    """The pickle at the position of `file`, which is left behind its end; nothing in it runs.

    Any exception means that it cannot be read so.
    """
    unpickler = _StubUnpickler(file)
    root = unpickler.load()
    return Pickled(
        root=root,
        tensors=tuple(unpickler.tensors),
        storages=tuple(unpickler.storages),
        opaque=frozenset(s.key for s in unpickler.storages if id(s) not in unpickler.used),
        kept=tuple(unpickler.kept),
    )


def _text(value: object) -> object:
    return value.decode("ascii") if isinstance(value, bytes) else value


def _counts(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _lengths(value: object) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or not all(map(_counts, value)):
        raise pickle.UnpicklingError("a tensor without a shape")
    return tuple(value)
