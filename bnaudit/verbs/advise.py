"""What to do about an Audit: the remedies, ranked, with their evidence and cost."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from bnaudit.errors import InputError
from bnaudit.findings.advice.ranking import advice_of
from bnaudit.report.files import read_results
from bnaudit.results import Audit
from bnaudit.results.advice import Advice


def advise(audit: Audit | str | PathLike[str]) -> Advice:
    """Rank the remedies that an Audit, or the file or folder that holds one, speaks for.

    Nothing is run: every sentence rests on figures of the Audit and names their paths in its
    audit.json. What decides about new statistics is how the network scores as deployed and by
    mini-batches' statistics, never a shift alone. Raises `InputError` where the file is no Audit.
    """
    if isinstance(audit, Audit):
        return advice_of(audit, audit.model.checkpoint or audit.model.source)
    if not isinstance(audit, (str, PathLike)):
        raise InputError(f"audit is {audit!r}: give an Audit, or the path of an audit.json")
    path = Path(audit)
    return advice_of(read_results(path), str(path))
