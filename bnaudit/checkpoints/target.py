"""Whether a checkpoint can be written under a name, told before any work is done."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from bnaudit.checkpoints.formats import detect_format
from bnaudit.checkpoints.messages import input_error
from bnaudit.checkpoints.opening import opened
from bnaudit.checkpoints.sidecar import sidecar_of

_ELSEWHERE = "give another name with -o"


def check_target(source: Path, target: Path, *, overwrite: bool, with_sidecar: bool = True) -> None:
    """Raise `InputError` where a copy of `source` cannot be written to `target` and its sidecar.

    `overwrite`: whether files of these names may be replaced; `source` never is, under whatever
    name. Nothing is written.
    """
    check_names(source, target, overwrite=overwrite, with_sidecar=with_sidecar)
    folder = target.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise input_error(target, f"its folder {folder} is not writable; {_ELSEWHERE}")
    with opened(source) as file:
        format_ = detect_format(source, file)
        size = os.fstat(file.fileno()).st_size
    if target.suffix == ".safetensors" and format_ != "safetensors":
        raise input_error(
            target, f"{source.name} is a file of torch.save, and so is its copy; {_ELSEWHERE}"
        )
    free = shutil.disk_usage(folder).free
    if free < size:
        raise input_error(
            target, f"needs {size:,} bytes, and {free:,} are free there; {_ELSEWHERE}"
        )


def check_names(source: Path, target: Path, *, overwrite: bool, with_sidecar: bool = True) -> None:
    """The part of `check_target` about what stands under the names, which may change meanwhile."""
    folder = target.parent
    names = [target, sidecar_of(target)] if with_sidecar else [target]
    if target.is_dir():
        raise input_error(target, f"a folder; {_ELSEWHERE}, with a file name")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist; make it first"
        raise input_error(target, f"its folder {folder} {what}, or {_ELSEWHERE}")
    for name in names:
        _check_is_other(source, name)
        if not os.path.lexists(name):
            continue
        if not stat.S_ISREG(name.lstat().st_mode) and not name.is_symlink():
            raise input_error(name, f"not a regular file; {_ELSEWHERE}")
        if not overwrite:
            raise input_error(name, f"exists already; allow --overwrite, or {_ELSEWHERE}")


def _check_is_other(source: Path, name: Path) -> None:
    try:
        same = name.samefile(source)
    except OSError:  # one of them does not exist
        same = name.absolute() == source.absolute()
    if same:
        raise input_error(name, f"the input file itself, which is never written to; {_ELSEWHERE}")
