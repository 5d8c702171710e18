"""The types of tensors in files, known without torch."""

from __future__ import annotations

from dataclasses import dataclass

from bnaudit.checkpoints.sealed import Sealed


@dataclass(frozen=True)
class Dtype(Sealed):
    """A type of tensor elements, by torch's name for it.

    `itemsize` in bytes. `numpy`: the type that reads its bytes, in NumPy's spelling without the
    byte order; None where their values are not to be had so. bfloat16 is read as the two bytes it
    is (`contents.FileTensor` widens them).
    """

    name: str
    itemsize: int
    numpy: str | None = None

    @property
    def word(self) -> int:
        """How many bytes of an element are swapped together between byte orders."""
        return self.itemsize // 2 if "complex" in self.name else self.itemsize

    def __str__(self) -> str:
        return self.name


_READABLE = (
    Dtype("float64", 8, "f8"),
    Dtype("float32", 4, "f4"),
    Dtype("float16", 2, "f2"),
    Dtype("bfloat16", 2, "u2"),
    Dtype("int64", 8, "i8"),
    Dtype("int32", 4, "i4"),
    Dtype("int16", 2, "i2"),
    Dtype("int8", 1, "i1"),
    Dtype("uint64", 8, "u8"),
    Dtype("uint32", 4, "u4"),
    Dtype("uint16", 2, "u2"),
    Dtype("uint8", 1, "u1"),
    Dtype("bool", 1, "?"),
    Dtype("complex128", 16, "c16"),
    Dtype("complex64", 8, "c8"),
)
# Known by their size, which tells where other tensors lie.
_SIZES = {
    1: "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 "
    "uint1 uint2 uint3 uint4 uint5 uint6 uint7 int1 int2 int3 int4 int5 int6 int7 "
    "bits8 bits1x8 bits2x4 bits4x2 quint8 qint8 quint2x4 quint4x2",
    2: "bits16",
    4: "complex32 bcomplex32 qint32",
}
_BY_SIZE = [Dtype(name, size) for size, names in _SIZES.items() for name in names.split()]

DTYPES = {dtype.name: dtype for dtype in (*_READABLE, *_BY_SIZE)}
"""Every type of torch, by its name there (aliases such as `half` left out)."""

BYTES = DTYPES["uint8"]
