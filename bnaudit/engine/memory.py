"""How much memory there is."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import torch

from bnaudit.errors import InputError

SHARE = 0.7
"""Of the free memory, this much may be used unless the user says otherwise."""

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS |= {f"{unit}I": 1024.0**power for power, unit in enumerate("KMGT", 1)}

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on `device`; on the CPU a container's limit counts."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    available = int(psutil.virtual_memory().available)
    limit, used = (_number(_CGROUP / f"memory.{what}") for what in ("max", "current"))
    if limit is not None and used is not None:
        available = min(available, max(0, limit - used))
    return available


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def parse_size(text: str, option: str) -> int:
    """Bytes of `8GB`, `500 MB`, `1.5GiB` or a plain number. Raises `InputError`."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found[2] == "I" or float(found[1]) <= 0:
        raise InputError(f"{option} {text}: give a size such as 8GB or 500MB")
    return int(float(found[1]) * _UNITS[found[2]])


def in_words(size: float) -> str:
    """`1.8 GB`, `34 MB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.{0 if size >= 10 * unit else 1}f} {name}"
    return f"{size:.0f} bytes"
