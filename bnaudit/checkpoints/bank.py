"""A bank of statistics: one file with the running statistics of every domain.

A `.safetensors` file with tensors `DOMAIN/LAYER.running_mean` and `DOMAIN/LAYER.running_var`, and
in its metadata what they belong to. Nothing in it is executable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bnaudit._version import __version__
from bnaudit.atomic import replacing
from bnaudit.checkpoints.messages import first_line, input_error
from bnaudit.errors import InputError

FORMAT = "bnaudit-bank"
VERSION = "1"

LEAVES = ("running_mean", "running_var")

_NAME = re.compile(r"\w[\w.+-]{0,63}")

Statistics = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Bank:
    """The running statistics of several domains.

    `statistics`: by domain, then by layer: (running_mean, running_var), (C,) each; every domain has
    the same layers. `eps`: of each layer. `kept`: layers of the model that have no statistics here.
    `samples`: that each domain's come from. `model`, `checkpoint_sha256`: what they belong to.
    """

    statistics: Mapping[str, Mapping[str, Statistics]]
    eps: Mapping[str, float] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    samples: Mapping[str, int] = field(default_factory=dict)
    model: str = ""
    checkpoint_sha256: str | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.statistics)


def is_domain_name(name: str) -> bool:
    """Whether a domain may be called so: it becomes part of file names and of tensors' names."""
    return _NAME.fullmatch(name) is not None


def bank_dtype(own: torch.dtype) -> torch.dtype:
    """The dtype of statistics in a bank: a half-precision layer's would lose what they are for."""
    return torch.float64 if own == torch.float64 else torch.float32


def check_bank(path: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where a bank could not be written to `path`, before any work."""
    if path.suffix != ".safetensors":
        raise input_error(path, "a bank is a .safetensors file; give it such a name")
    if not path.parent.is_dir():
        raise input_error(path, f"its folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise input_error(path, "a folder; give a file name")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise input_error(path, "exists already; allow --overwrite, or give another name")


def write_bank(bank: Bank, path: Path, *, overwrite: bool = False) -> None:
    """Write the bank under a temporary name, then rename it. Raises `InputError`."""
    check_bank(path, overwrite=overwrite)
    tensors = {
        f"{domain}/{layer}.{leaf}": value.detach().cpu().contiguous()
        for domain, layers in bank.statistics.items()
        for layer, pair in layers.items()
        for leaf, value in zip(LEAVES, pair, strict=True)
    }
    about = {
        "domains": list(bank.domains),
        "eps": dict(bank.eps),
        "kept": list(bank.kept),
        "samples": dict(bank.samples),
        "model": bank.model,
        "checkpoint_sha256": bank.checkpoint_sha256,
        "bnaudit": __version__,
    }
    metadata = {"format": FORMAT, "version": VERSION, "about": json.dumps(about, sort_keys=True)}
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))
    except OSError as error:
        raise input_error(path, f"cannot be written ({error.strerror or error})") from None


def read_bank(path: Path) -> Bank:
    """The bank in a file. Raises `InputError` for anything that is none, or is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise input_error(path, "no bank of statistics: give what bnaudit domains wrote")
            if metadata.get("version") != VERSION:
                raise input_error(
                    path,
                    f"a bank of version {metadata.get('version')!r}; this bnaudit reads {VERSION}",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise input_error(path, "there is no such file; give a bank of statistics") from None
    except (OSError, SafetensorError) as error:
        raise input_error(path, f"cannot be read as a bank: {first_line(error)}") from None
    try:
        return _bank(json.loads(metadata["about"]), tensors)
    except _DamagedError as error:
        raise input_error(path, f"a damaged bank: {error}; write it anew") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise input_error(path, f"a damaged bank: {first_line(error)}; write it anew") from None


class _DamagedError(Exception):
    """What does not fit together in a bank."""


def _bank(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Bank:
    """Raises `_DamagedError` for what does not fit together, and what odd metadata raise."""
    statistics: dict[str, dict[str, Statistics]] = {str(name): {} for name in about["domains"]}
    for name in tensors:
        domain, _, rest = name.partition("/")
        layer, _, leaf = rest.rpartition(".")
        if domain not in statistics or leaf not in LEAVES:
            raise _DamagedError(f"a tensor is called {name[:80]!r}")
        pair = tuple(tensors.get(f"{domain}/{layer}.{one}") for one in LEAVES)
        mean, var = pair
        if mean is None or var is None or mean.dim() != 1 or mean.shape != var.shape:
            raise _DamagedError(f"{domain}/{layer} has no mean and variance of one length")
        if not bool((mean + var).isfinite().all()) or bool((var < 0).any()):
            raise _DamagedError(f"{domain}/{layer} is not finite, or a variance is negative")
        statistics[domain][layer] = (mean, var)
    first = next(iter(statistics.values()), {})
    if not first or any(layers.keys() != first.keys() for layers in statistics.values()):
        raise _DamagedError("not every domain has statistics of the same layers")
    eps = {str(name): float(value) for name, value in about["eps"].items()}
    if not all(math.isfinite(value) for value in eps.values()):
        raise _DamagedError("an eps is not finite")
    sha = about["checkpoint_sha256"]
    return Bank(
        statistics,
        eps,
        tuple(map(str, about["kept"])),
        {str(name): int(count) for name, count in about["samples"].items()},
        str(about["model"]),
        None if sha is None else str(sha),
    )


def statistics_in(bank: Bank, domain: str) -> Mapping[str, Statistics]:
    """The statistics of one domain. Raises `InputError` that lists the domains."""
    if domain not in bank.statistics:
        raise InputError(
            f"the bank has no domain {domain!r}: it has {', '.join(bank.domains) or 'none'}"
        )
    return bank.statistics[domain]
