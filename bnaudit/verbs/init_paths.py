"""Paths and specs as a configuration file in some folder has to say them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bnaudit.config import PATH_SCHEMES
from bnaudit.regular_files import with_home
from bnaudit.report.starter import Spec


@dataclass(frozen=True)
class Chosen:
    """What one setting of the new file is to be, and what a user is told of it.

    `found`: what it is, in words; None where there is nothing. `missing`: what is left to do.
    `check`: what works as it is, and may be wrong.
    """

    setting: Spec
    found: str | None = None
    missing: str | None = None
    check: str | None = None


def relative_to(path: Path, folder: Path) -> str:
    """The path from `folder`, with slashes; absolute where a relative one would not do."""
    full = Path(os.path.realpath(path.parent), path.name)
    try:
        text = Path(os.path.relpath(full, os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive
        return full.as_posix()
    return full.as_posix() if text.startswith("~") else text


def relative_spec(spec: str, folder: Path) -> str:
    """The spec of a model, data or a transform, with a path in it from `folder`."""
    scheme, colon, rest = spec.partition(":")
    if colon and scheme in PATH_SCHEMES:
        return f"{scheme}:{relative_to(with_home(rest), folder)}"
    if scheme.endswith(".py"):
        return f"{relative_to(with_home(scheme), folder)}{colon}{rest}"
    return spec
