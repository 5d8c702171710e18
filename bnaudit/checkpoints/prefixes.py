"""The change of prefix that makes most of a checkpoint's names a model's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]

# The longest prefix that is tried, in dotted components.
_LONGEST = 3
# Modules that wrap another one under a name of their own: torch.compile, FSDP, checkpointing.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Words in a key that speak of averaged weights.
_AVERAGED = frozenset({"ema", "averaged", "average", "swa", "shadow", "teacher", "target"})


def is_averaged(key: str) -> bool:
    """Whether a key speaks of averaged weights (EMA, SWA, a teacher), by one of its words."""
    return not _AVERAGED.isdisjoint(re.findall("[a-z]+", key.lower()))


def fits(found: Shape, expected: Shape | None) -> bool:
    """Whether a tensor of one shape can be loaded into one of another; None takes any."""
    # Scalars were saved with one dimension once, and torch still loads them.
    return expected is None or found == expected or (found == (1,) and expected == ())


@dataclass(frozen=True, eq=False)
class Renaming:
    """From names in a file to names in a model.

    `stripped`, `added`: as in `Match`. The rest is how it works: `strip` and `add` are the prefixes
    with wrappers' names left out, `spelled` gives the model's spelling of such a plain name.
    """

    stripped: str
    added: str
    strip: str = ""
    add: str = ""
    spelled: Mapping[str, str] = field(default_factory=dict, repr=False)

    def covers(self, name: str) -> bool:
        """Whether `name` has the prefix that is stripped."""
        return _without_wrappers(name).startswith(self.strip)

    def of(self, name: str) -> str:
        """The model's name for `name`; a name without the stripped prefix stays as it is."""
        if not self.covers(name):
            return name
        plain = _without_wrappers(name)
        renamed = self.add + plain[len(self.strip) :]
        return self.spelled.get(renamed, renamed)


def find_renaming(found: Mapping[str, Shape], expected: Mapping[str, Shape | None]) -> Renaming:
    """The renaming under which most names and shapes of a file (`found`) are the model's.

    None in `expected` matches any shape. Of renamings that match equally many, the one that changes
    fewest components is taken, then plain weights before averaged ones, then the order in the file.
    A prefix that less than half of the names share could match by accident (`conv1.weight` is a
    name in many models), so it has to match half of the smaller side.
    """
    spelled: dict[str, str] = {}
    for name in expected:
        spelled.setdefault(_without_wrappers(name), name)
    ours = {_without_wrappers(name): shape for name, shape in found.items()}
    theirs = {plain: expected[name] for plain, name in spelled.items()}
    strip, add = _best_prefixes(ours, theirs)
    stripped, added = _spelled_prefix(strip, found), _spelled_prefix(add, expected)
    while (shared := stripped.split(".")[-2:]) == added.split(".")[-2:] and len(shared) == 2:
        # A wrapper that both sides have is no change.
        stripped, added = (text[: -len(shared[0]) - 1] for text in (stripped, added))
    inside = _wrappers_inside(found, strip) - _wrappers_inside(expected, add)
    return Renaming(
        stripped=stripped + "".join(f"*{wrapper}." for wrapper in sorted(inside)),
        added=added,
        strip=strip,
        add=add,
        spelled=spelled,
    )


def _best_prefixes(
    found: Mapping[str, Shape], expected: Mapping[str, Shape | None]
) -> tuple[str, str]:
    strips, adds = _by_prefix(found), _by_prefix(expected)
    smaller = min(len(found), len(expected))
    unchanged = _score(found, expected, strips[""], adds[""], "", "")
    best, best_rank = ("", ""), _rank(unchanged, "", "", 0)
    for order, (strip, rests) in enumerate(_largest_first(strips)):
        if len(rests) < best_rank[0]:
            break  # sorted by size: no later prefix can match as many
        for add, own_rests in _largest_first(adds):
            if min(len(rests), len(own_rests)) < max(best_rank[0], 1):
                break
            score = _score(found, expected, rests, own_rests, strip, add)
            common = 2 * len(rests) >= len(found) and 2 * len(own_rests) >= len(expected)
            rank = _rank(score, strip, add, order)
            if score and rank > best_rank and (common or 2 * score >= smaller):
                best, best_rank = (strip, add), rank
    return best


def _score(
    found: Mapping[str, Shape],
    expected: Mapping[str, Shape | None],
    rests: set[str],
    own_rests: set[str],
    strip: str,
    add: str,
) -> int:
    """How many names, without their prefixes, are in both sets with shapes that fit."""
    both = rests & own_rests
    return sum(fits(found[strip + rest], expected[add + rest]) for rest in both)


def _rank(score: int, strip: str, add: str, order: int) -> tuple[int, int, bool, int]:
    return score, -strip.count(".") - add.count("."), not is_averaged(strip), -order


def _by_prefix(names: Mapping[str, object]) -> dict[str, set[str]]:
    """For each prefix, "" and those with up to `_LONGEST` components: what follows it."""
    rests: dict[str, set[str]] = {"": set(names)}
    for name in names:
        end = 0
        for _ in range(_LONGEST):
            end = name.find(".", end) + 1
            if end == 0:
                break
            rests.setdefault(name[:end], set()).add(name[end:])
    return rests


def _largest_first(prefixes: Mapping[str, set[str]]) -> list[tuple[str, set[str]]]:
    return sorted(prefixes.items(), key=lambda item: -len(item[1]))


def _without_wrappers(name: str) -> str:
    if "_" not in name:
        return name
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _spelled_prefix(plain: str, names: Mapping[str, object]) -> str:
    """The prefix as the names themselves have it, wrappers included."""
    for name in names:
        if not _without_wrappers(name).startswith(plain):
            continue
        parts = name.split(".")
        for end in range(len(parts)):
            head = ".".join(parts[:end]) + "." if end else ""
            if _without_wrappers(head) == plain and parts[end] not in _WRAPPERS:
                return head
    return plain


def _wrappers_inside(names: Mapping[str, object], plain: str) -> set[str]:
    """The wrappers that stand further in than the prefix."""
    head = len(_spelled_prefix(plain, names))
    return {part for name in names for part in name[head:].split(".") if part in _WRAPPERS}
