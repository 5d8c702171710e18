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

_CGROUPS = (  # versions 2 and 1: folder, limit, usage, the part of it that is file cache
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""A container's own limits; those of groups around it are not seen from inside."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on `device`; a container's limit counts, on CUDA that of the process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        free = min(free, max(0, int(_fraction(device) * total) - reserved))
        return int(free + reserved - torch.cuda.memory_allocated(device))
    available = int(psutil.virtual_memory().available)
    for folder, ceiling_file, usage_file, cached in _CGROUPS:
        ceiling, taken = _number(folder / ceiling_file), _number(folder / usage_file)
        if ceiling is not None and taken is not None:
            taken -= _statistic(folder / "memory.stat", cached)  # file cache is given up on demand
            available = min(available, max(0, ceiling - taken))
    return available


def _fraction(device: torch.device) -> float:
    """What `torch.cuda.set_per_process_memory_fraction` leaves; older versions do not tell."""
    read = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    if read is None:
        return 1.0
    index = device.index if device.index is not None else torch.cuda.current_device()
    return float(read(index))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _statistic(path: Path, name: str) -> int:
    try:
        found = re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


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
