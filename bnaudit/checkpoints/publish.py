"""Giving a checkpoint and its sidecar their final names, so that they always tell the truth."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bnaudit.atomic import flush_file, flush_folder, temporary_beside
from bnaudit.checkpoints.messages import input_error

# Two files cannot be renamed at one moment, so the sidecar knows its checkpoint by SHA-256, and
# whoever restores compares. The sidecar goes first: a checkpoint under its final name always has
# its old statistics beside it. Where it replaces an older pair, it carries the older sidecar along
# (`previous`), so in between, and after a crash there, the old checkpoint can still be restored.
# The states that a crash can leave are therefore:
#   old pair                    nothing has happened
#   old checkpoint, new sidecar where there was an old pair, `previous` fits the old checkpoint;
#                               else the SHA-256 does not fit, and restore refuses
#   new pair                    done
# An exception or an interrupt before the second rename also takes the first one back.


def publish(copy: Path, target: Path, sidecar: Path, document: bytes) -> None:
    """Rename the finished `copy` to `target`, after `document` has become the file `sidecar`.

    All are in one folder; files of the final names are replaced. Raises `OSError`; the final names
    then stand for what they did before. Raises `InputError` where they have been replaced, and the
    system cannot promise that this lasts.
    """
    flush_file(copy)
    with temporary_beside(sidecar) as new, temporary_beside(sidecar) as old:
        new.write_bytes(document)
        flush_file(new)
        existed = os.path.lexists(sidecar)
        if existed:
            # A second name is safer than writing it back: that could fail on a full disk.
            old.unlink()
            _second_name(sidecar, old)
        try:
            new.replace(sidecar)
            flush_folder(sidecar.parent)
            take_name(copy, target)
        except BaseException:
            # Only between the two renames is there something to take back.
            if copy.exists() and not new.exists():
                if existed:
                    old.replace(sidecar)
                else:
                    sidecar.unlink(missing_ok=True)
            raise
    flush_name(target)


def take_name(copy: Path, target: Path) -> None:
    """Rename `copy` to `target`. Raises `OSError` only where that has not happened."""
    try:
        copy.replace(target)
    except OSError:
        if copy.exists():  # else a network file system reports the failure of a second attempt
            raise


def flush_name(target: Path) -> None:
    """Return once the new name is on the disk; an `InputError` says that it may not be."""
    try:
        flush_folder(target.parent)
    except OSError as error:
        what = f"was written, but may not survive a power failure ({error.strerror})"
        raise input_error(target, f"{what}; check the disk, then write it again") from None


def _second_name(file: Path, name: Path) -> None:
    try:
        os.link(file, name, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(file, name)
        flush_file(name)
