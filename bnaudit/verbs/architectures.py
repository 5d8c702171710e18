"""Which models of torchvision and timm a checkpoint can have been saved from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bnaudit.errors import InputError
from bnaudit.targets.outlines import Shapes, outline_of, timm_families, torchvision_specs
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.fitting import Fit, fit

ROUNDS = ((1, 2), (3, 4))
"""Of timm: how many models of each family are looked at, and of how many of the families that look
most like the checkpoint all are. The second round is for what the first does not find.
"""

FAMILIAR = 0.3
"""The share of patterns of names that a family has to have in common to be searched."""

CANDIDATES = 24
"""Models that are compared tensor by tensor."""

ALIKE = 0.5
"""The share of tensors that a model has to have in common with a checkpoint to be compared."""

_LONGEST_PREFIX = 3


@dataclass(frozen=True)
class Architectures:
    """What was found: the models that fit exactly, the plainest first, and else the nearest one."""

    exact: tuple[Fit, ...]
    nearest: Fit | None = None


def find_architectures(found: Shapes, *, file: str = "", progress: Bar = no_bar) -> Architectures:
    """The models of torchvision, and of timm where it is installed, that have the tensors `found`.

    By names and shapes alone, of models that are built on the meta device; nothing is downloaded.
    Of timm's families only those are searched whose names of tensors look like the checkpoint's.
    Names, shapes and prefixes are compared as in loading; the number of classes, of input channels
    and auxiliary heads may be another one (`fit`).

    Models of the same shapes can differ in strides, padding and eps. The plainest comes first: one
    whose name is in `file`, the file's name, the longest such name first; then torchvision's before
    timm's; then those with fewest arguments, then those with the shortest name.
    """
    search = _Search(found, progress)
    search.look_at(torchvision_specs(), "looking at torchvision's models")
    families = timm_families()
    for sampled, searched in ROUNDS if families else ():
        samples = {family: _spread(specs, sampled) for family, specs in families.items()}
        every = [spec for specs in samples.values() for spec in specs]
        search.look_at(every, "looking at timm's families")
        for family in search.most_familiar(samples)[:searched]:
            search.look_at(families[family], f"looking at timm's {family}")
        if any(one.difference.exact for one in search.compared()):
            break
    compared = sorted(search.compared(), key=lambda one: _plainness(one, file))
    exact = tuple(one for one in compared if one.difference.exact)
    nearest = min(compared, key=lambda one: one.difference.size, default=None)
    return Architectures(exact, None if exact else nearest)


def _plainness(one: Fit, file: str) -> tuple[int, bool, int, int, str]:
    named = len(one.name) if one.name.lower() in file.lower() else 0
    return (
        -named,
        not one.spec.startswith("torchvision:"),
        len(one.args),
        len(one.name),
        one.name,
    )


class _Search:
    """The models that were looked at, and those of them that were compared tensor by tensor."""

    def __init__(self, found: Shapes, progress: Bar) -> None:
        self._found, self._progress = found, progress
        self._ends = _ends(found)
        self._patterns = list(_patterns_without_prefix(found))
        self._outlines: dict[str, Shapes] = {}
        self._fits: dict[str, Fit] = {}

    def look_at(self, specs: Sequence[str], what: str) -> None:
        """Build the outlines of those models that have none yet."""
        new = [spec for spec in specs if spec not in self._outlines]
        with self._progress(what, len(new), "models") as advance:
            for spec in new:
                try:
                    self._outlines[spec] = outline_of(spec, {})
                except InputError:
                    # A model that this version of the library, or a package it lacks, cannot build.
                    self._outlines[spec] = {}
                advance(1)

    def most_familiar(self, samples: Mapping[str, Sequence[str]]) -> list[str]:
        """The families whose samples' names look like the checkpoint's, the most alike first."""
        likeness = {
            family: max(_likeness(self._patterns, self._outlines[spec]) for spec in specs)
            for family, specs in samples.items()
        }
        familiar = [family for family in samples if likeness[family] >= FAMILIAR]
        return sorted(familiar, key=lambda family: -likeness[family])

    def compared(self) -> list[Fit]:
        """The models that have most tensors in common, each with what still differs."""
        shares = {spec: self._share(shapes) for spec, shapes in self._outlines.items()}
        alike = sorted((s for s in shares if shares[s] >= ALIKE), key=lambda spec: -shares[spec])
        for spec in alike[:CANDIDATES]:
            if spec not in self._fits:
                self._fits[spec] = fit(spec, self._found)
        return list(self._fits.values())

    def _share(self, shapes: Shapes) -> float:
        """Of the larger side's tensors, by the ends of their names and their shapes."""
        theirs = _ends(shapes)
        larger = max(self._ends.total(), theirs.total())
        return (self._ends & theirs).total() / larger if larger else 0.0


def _spread(items: Sequence[str], count: int) -> list[str]:
    """At most `count` of the items: the first, the last, and evenly between."""
    steps = max(count - 1, 1)
    return list(dict.fromkeys(items[i * (len(items) - 1) // steps] for i in range(count)))


def _ends(shapes: Shapes) -> Counter[tuple[str, tuple[int, ...]]]:
    """How often which shape stands under which last part of a name: the same for any prefix."""
    return Counter((name.rpartition(".")[2], shape) for name, shape in shapes.items() if shape)


def _likeness(patterns: Iterable[frozenset[str]], outline: Shapes) -> float:
    """The largest share of patterns of names in common."""
    theirs = _patterns(outline)
    return max((len(ours & theirs) / len(ours | theirs) for ours in patterns if ours), default=0.0)


def _patterns_without_prefix(shapes: Shapes) -> Iterator[frozenset[str]]:
    """The patterns of a file's names, with up to three leading parts that most share taken off."""
    names = list(shapes)
    yield _patterns(names)
    for _ in range(_LONGEST_PREFIX):
        heads = Counter(name.partition(".")[0] for name in names)
        head, count = heads.most_common(1)[0]
        if 2 * count < len(names):
            return
        names = [rest for name in names if (rest := name.removeprefix(f"{head}.")) and rest != name]
        if not names:
            return
        yield _patterns(names)


def _patterns(names: Iterable[str]) -> frozenset[str]:
    """Names with their numbers left out: `layer#.#.conv#.weight`."""
    return frozenset(re.sub(r"\d+", "#", name) for name in names)
