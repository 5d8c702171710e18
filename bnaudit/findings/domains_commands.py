"""The command that a finding about domains gives: the same run with another option."""

from __future__ import annotations

import shlex

from bnaudit.results.domains import Domains


def again(result: Domains, *options: str) -> str | None:
    """The comparison with these options; None from Python."""
    request = result.request
    if request is None:
        return None
    words = ("domains", request.checkpoint, *request.model, *request.data, *request.how, *options)
    return shlex.join(("bnaudit", *words))
