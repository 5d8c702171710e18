"""Which layers a recalibration may change, and why the others keep their statistics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from bnaudit.config import nearest
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.trial import Trial
from bnaudit.errors import InputError


def select_layers(
    layers: list[BNLayer], trial: Trial, patterns: Sequence[str], *, frozen: bool
) -> tuple[list[BNLayer], dict[BNLayer, str]]:
    """(the layers that may change, the reason of each other one).

    `trial`: what a first forward showed; `patterns`: globs or /regexes/ of which one
    has to match, all layers where there is none; `frozen`: whether frozen layers are included.
    """
    matching = [_matcher(pattern) for pattern in patterns]
    chosen, kept = [], {}
    for layer in layers:
        names = (layer.name, *layer.aliases)
        selected = not matching or any(matches(name) for name in names for matches in matching)
        reason = _tied(layer, layers) or _reason(layer, trial, selected=selected, frozen=frozen)
        if reason is None:
            chosen.append(layer)
        else:
            kept[layer] = reason
    return chosen, kept


def check_patterns(layers: list[BNLayer], patterns: Sequence[str]) -> None:
    """Raises `InputError` for a pattern that matches no layer, with the nearest name."""
    known = [name for layer in layers for name in (layer.name, *layer.aliases)]
    for pattern in patterns:
        if not any(map(_matcher(pattern), known)):
            raise InputError(f"--layers {pattern}: matches no layer{nearest(pattern, known[:40])}")


def _matcher(pattern: str) -> Callable[[str], bool]:
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        try:
            compiled = re.compile(pattern[1:-1])
        except re.error as error:
            raise InputError(f"--layers {pattern}: not a regular expression: {error}") from error
        return lambda name: compiled.search(name) is not None
    return lambda name: fnmatchcase(name, pattern)


def _tied(layer: BNLayer, layers: list[BNLayer]) -> str | None:
    """Two modules with one buffer cannot each have the statistics of their own input."""
    if layer.role != "estimated":
        return None
    own = {buffer.data_ptr() for buffer in layer.estimated}
    for other in layers:
        if other is layer or other.role != "estimated":
            continue
        if own & {buffer.data_ptr() for buffer in other.estimated}:
            return f"shares its statistics with {other.name}, which has another input"
    return None


def _reason(layer: BNLayer, trial: Trial, *, selected: bool, frozen: bool) -> str | None:
    """Why a layer keeps its statistics, None where it may change."""
    if layer.role == "batch-dependent":
        return (
            "no running statistics: it normalises by the batch at inference too, so there is "
            "nothing to recalibrate, and what it passes on depends on the batches"
        )
    if layer.role == "not-audited":
        return layer.note or "not audited"
    if not selected:
        return "not among --layers"
    if layer.frozen and not frozen:
        return "frozen: the weights were trained with these constants (--include-frozen)"
    if layer.name in trial.training:
        return "the model puts it into training mode inside its forward"
    if layer.verified:
        return None
    if layer.name not in trial.calls:
        return "of unknown kind, and not called by the first samples: nothing shows what it does"
    return layer.note or "its output does not show that it normalises by its statistics"
