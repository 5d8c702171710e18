"""`restore`: a recalibrated checkpoint's old statistics back, from its sidecar."""

from __future__ import annotations

from pathlib import Path

from bnaudit.checkpoints.restore import RestoreReport, restore_checkpoint


def restore(
    path: Path,
    target: Path | None = None,
    *,
    overwrite: bool = False,
    trust_pickle: bool = False,
) -> RestoreReport:
    """Write the checkpoint as it was before `recalibrate` to `target`; `path` stays as it is.

    Without a target, `ckpt.recalibrated.pth` goes to `ckpt.restored.pth`. Raises `InputError` where
    the sidecar is missing or belongs to another file, or where the target cannot be written.
    """
    return restore_checkpoint(path, target, overwrite=overwrite, trust_pickle=trust_pickle)
