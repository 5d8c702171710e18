"""Where a file may differ after a patch, found without any of bnaudit's own parsing."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def ranges_of(content: bytes, values: Iterable[Tensor]) -> list[range]:
    """Where values that stand in the file once lie in it."""
    found = []
    for value in values:
        data = raw(value)
        assert content.count(data) == 1, "the test needs values that occur once"
        at = content.index(data)
        found.append(range(at, at + len(data)))
    return found


def checksum_ranges(path: Path, members: Iterable[str]) -> list[range]:
    """The CRC fields of an archive's members, found by their value beside names and sizes."""
    content = path.read_bytes()
    found = []
    with zipfile.ZipFile(path) as archive:
        for name in members:
            info = archive.getinfo(name)
            crc = struct.pack("<I", info.CRC)
            at = content.find(crc)
            while at >= 0:
                found.append(range(at, at + 4))
                at = content.find(crc, at + 1)
    return found


def differing_bytes(one: bytes, other: bytes) -> set[int]:
    assert len(one) == len(other)
    return {i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b}


def assert_differs_only_in(one: bytes, other: bytes, allowed: Iterable[range]) -> None:
    places = set().union(*allowed)
    outside = differing_bytes(one, other) - places
    assert not outside, f"bytes {sorted(outside)[:10]} differ, of {len(outside)}"


def members_that_differ(one: Path, other: Path) -> set[str]:
    with zipfile.ZipFile(one) as a, zipfile.ZipFile(other) as b:
        assert a.namelist() == b.namelist()
        return {name for name in a.namelist() if a.read(name) != b.read(name)}
