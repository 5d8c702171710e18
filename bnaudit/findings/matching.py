"""Which layer of one Audit is which of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from bnaudit.results import LayerAudit

MOST_PAIRS = 1_000_000
"""Of unmatched layers, one of each side, among which renamed ones are looked for: the work grows
faster than their number. A thousand on either side take a few seconds at the worst."""


class Match(NamedTuple):
    """One layer in both Audits."""

    before: LayerAudit
    after: LayerAudit


@dataclass(frozen=True)
class Matching:
    """The layers in both Audits, in the order that they are called in afterwards, and the others.

    `added` and `removed` are in the order of the calls too.
    """

    matches: tuple[Match, ...]
    added: tuple[LayerAudit, ...]
    removed: tuple[LayerAudit, ...]

    @property
    def now(self) -> dict[str, str]:
        """What the matched layers are called now, by what they were called before."""
        return {match.before.name: match.after.name for match in self.matches}


def match_layers(before: Sequence[LayerAudit], after: Sequence[LayerAudit]) -> Matching:
    """Match layers by name, or by an alias; what is left over, as renamed where that fits.

    A layer was renamed where one that is left over on the other side is of the same kind, has as
    many channels and a name with the same end (`bn1`; numbers count as equal, inserting a module
    into a `Sequential` counts them on), and the order of the calls agrees. Where several would do
    it is the longest run of them that is matched first. Beyond `MOST_PAIRS` renamed layers are
    found only where all that is left over fits.
    """
    old, new = in_call_order(before), in_call_order(after)
    by_name = {name: layer for layer in old for name in layer.aliases}
    by_name |= {layer.name: layer for layer in old}
    found: dict[str, LayerAudit] = {}
    taken: set[str] = set()
    for layer in sorted(new, key=lambda layer: layer.name not in by_name):  # names before aliases
        named = [by_name[n] for n in (layer.name, *layer.aliases) if n in by_name]
        same = next((other for other in named if other.name not in taken), None)
        if same is not None:
            found[layer.name] = same
            taken.add(same.name)
    added = [layer for layer in new if layer.name not in found]
    removed = [layer for layer in old if layer.name not in taken]
    for was, now in _renamed(removed, added):
        found[now.name] = was
        taken.add(was.name)
    return Matching(
        matches=tuple(Match(found[layer.name], layer) for layer in new if layer.name in found),
        added=tuple(layer for layer in new if layer.name not in found),
        removed=tuple(layer for layer in old if layer.name not in taken),
    )


def in_call_order(layers: Sequence[LayerAudit]) -> list[LayerAudit]:
    """The layers as they are called; those that are not, at the end, as they stand."""
    return sorted(layers, key=lambda layer: (layer.order is None, layer.order or 0))


def _renamed(removed: list[LayerAudit], added: list[LayerAudit]) -> list[Match]:
    old, new = ([_signature(layer) for layer in side] for side in (removed, added))
    if old == new:
        return list(map(Match, removed, added))
    if len(old) * len(new) > MOST_PAIRS:
        return []
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return [
        Match(removed[block.a + i], added[block.b + i])
        for block in blocks
        for i in range(block.size)
    ]


def _signature(layer: LayerAudit) -> tuple[str, int, str]:
    end = layer.name.rpartition(".")[2]
    return layer.kind, layer.channels, "number" if end.isdecimal() else end
