"""Whether two Audits measured the same samples, and what else makes them less comparable."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bnaudit.findings.matching import Matching
from bnaudit.findings.network_differences import same_mini_batches
from bnaudit.findings.phrases import plural
from bnaudit.results import Audit, Uncompared

FEW = 0.5
"""Below this share of layers that stand on both sides, it may be another architecture."""


def same_samples(before: Audit, after: Audit) -> bool:
    """Whether both read the same samples in the same order, and dealt them to the same groups."""
    old, new = before.data, after.data
    if old is None or new is None or not old.fingerprint:
        return False
    return (old.fingerprint, old.samples, old.groups, old.skipped) == (
        new.fingerprint,
        new.samples,
        new.groups,
        new.skipped,
    )


def same_weights(before: Audit, after: Audit) -> bool:
    """Whether both are of the same part of the same file, in layers with the same settings."""
    old, new = before.model, after.model
    if new.checkpoint_sha256 is None or old.checkpoint_sha256 != new.checkpoint_sha256:
        return False
    return old.checkpoint_key == new.checkpoint_key and _settings(before) == _settings(after)


def same_figures(before: Audit, after: Audit) -> bool:
    """Whether every layer and output is equal to the last digit, on the same samples.

    Then what was measured is the same function; the weights may still differ where the forward
    does not use them.
    """
    equal = (before.layers, before.network) == (after.layers, after.network)
    return equal and same_samples(before, after)


def _settings(audit: Audit) -> list[tuple[object, ...]]:
    return sorted((x.name, x.kind, x.channels, x.eps, x.momentum, x.frozen) for x in audit.layers)


def uncompared(before: Audit, after: Audit) -> Iterator[Uncompared]:
    """The figures that the gate judges and that only the Audit before has, or has otherwise."""
    old, new = before.network, after.network
    if old is None:
        return
    if old.deployed is not None and (new is None or new.deployed is None):
        yield Uncompared("accuracy", "today's data have no labels, or the outputs no classes")
    if old.agreement is None:
        return
    if new is None or new.agreement is None:
        yield Uncompared("disagreement", "today's outputs were not compared at mini-batches")
    elif not same_mini_batches(before, after):
        sizes = before.batch_statistics_size, after.batch_statistics_size
        yield Uncompared("disagreement", "mini-batches of {} before, of {} today".format(*sizes))


def comparability(before: Audit, after: Audit, matching: Matching) -> Iterator[str]:
    """What to know before the differences are read, each as a sentence."""
    yield from _layers(before, after, matching)
    yield from _data(before, after)
    if before.dtype != after.dtype:
        yield f"Measured in {before.dtype} before, in {after.dtype} after."
    yield from _outputs(before, after)
    old, new = (_release(audit) for audit in (before, after))
    if old and new and old != new:
        yield f"Measured by bnaudit {old} before, by {new} after: figures may be defined otherwise."


def _layers(before: Audit, after: Audit, matching: Matching) -> Iterator[str]:
    matched = len(matching.matches)
    most = max(len(before.layers), len(after.layers))
    if most and matched < FEW * most:
        yield (
            f"Only {matched} of {plural(most, 'layer')} stand on both sides: "
            "is it another architecture?"
        )


def _data(before: Audit, after: Audit) -> Iterator[str]:
    old, new = before.data, after.data
    if old is None or new is None:
        return
    if old.source != new.source:
        yield f"Other data: {old.source} before, {new.source} after."
    elif old.available != new.available:
        counts = " before, ".join(f"{x.available:,}" if x.available else "?" for x in (old, new))
        yield f"The data are not as large as they were: {counts} after."
    if old.transform != new.transform:
        was, now = old.transform or "none", new.transform or "none"
        yield f"Another transform: {was} before, {now} after."
    if old.fingerprint == new.fingerprint and not same_samples(before, after):
        yield (
            "The same data, but other samples of them could not be read, or they are in other "
            "groups: compared as if they were independent, which is too cautious."
        )


def _outputs(before: Audit, after: Audit) -> Iterator[str]:
    old, new = before.network, after.network
    if old is None or new is None:
        return
    if old.task != new.task:
        yield f"The task is {old.task} before, {new.task} after: outputs are not compared."
    elif not same_mini_batches(before, after):
        yield (
            f"Mini-batches of {before.batch_statistics_size} before, of "
            f"{after.batch_statistics_size} after: the disagreement is not compared."
        )


def _release(audit: Audit) -> str | None:
    """The part of the version that says whether figures are defined alike."""
    found = re.match(r"\d+\.\d+", audit.versions.get("bnaudit", ""))
    return found[0] if found else None
