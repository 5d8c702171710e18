"""`compare`: what changed from one Audit to another. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from bnaudit.errors import InputError
from bnaudit.findings.phrases import plural
from bnaudit.results import Audit, Changes


class _Given(NamedTuple):
    audit: Audit
    source: str


def compare(
    before: Audit | str | os.PathLike[str], after: Audit | str | os.PathLike[str]
) -> Changes:
    """What changed from one Audit to another, layer by layer, and what of it is more than noise.

    Each side is an Audit in hand, an `audit.json`, or the folder that holds one. Where both
    measured the same samples with the same seed the comparison is paired, the strongest form.

    Returns the `Changes`: `changes.layers` and `changes.network` with their intervals,
    `changes.gained` and `changes.lost`, the findings of one side alone. Raises `InputError` for a
    file that cannot be read as an Audit, and for two Audits that have no layer in common.

    Example:
        >>> changes = bnaudit.compare("before/audit.json", "after/audit.json")  # doctest: +SKIP
        >>> [x.name for x in changes.layers if x.output_shift.significant]  # doctest: +SKIP
    """
    from bnaudit.findings.changes import changes_between

    old, new = _given(before, "before"), _given(after, "after")
    changes = changes_between(
        old.audit, new.audit, before_source=old.source, after_source=new.source
    )
    if not changes.layers and (old.audit.layers or new.audit.layers):
        raise InputError(
            f"{old.source} ({_first(old.audit)}) and {new.source} ({_first(new.audit)}) have no "
            "BatchNorm layer in common: compare two Audits of the same network"
        )
    return changes


def _given(side: Audit | str | os.PathLike[str], name: str) -> _Given:
    if isinstance(side, Audit):
        return _Given(side, name)
    from bnaudit.report.files import read_results

    return _Given(read_results(Path(side)), os.fspath(side))


def _first(audit: Audit) -> str:
    if not audit.layers:
        return "without layers"
    return f"{plural(len(audit.layers), 'layer')}, the first {audit.layers[0].name}"
