"""Which BatchNorm layers XBN blocks replace, found in the outline of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from bnaudit.nn.xbn_outline import Outline

Position = Literal["P1", "P2", "P3"]
Part = Literal["stem", "residual", "depthwise", "split depthwise"]


@dataclass(frozen=True)
class Place:
    """A BatchNorm layer to replace: the name of its module, and the part of the network it is in.

    "split depthwise": after a depthwise convolution in a block that ends by concatenating its
    branches, as ShuffleNetV2's do.
    """

    module: str
    part: Part


@dataclass(frozen=True)
class _Join:
    """An addition or concatenation: where its branches part, and the steps on each branch."""

    step: int
    branching: int
    branches: tuple[frozenset[int], ...]

    @property
    def region(self) -> frozenset[int]:
        """All steps between the branching point and the join."""
        return frozenset[int]().union(*self.branches)


@dataclass(frozen=True)
class _Block:
    """A residual block: its join, and the norms of its longer branch in running order."""

    join: _Join
    norms: tuple[int, ...]


@dataclass(frozen=True)
class _Found:
    """A norm to replace, and the step at which its block begins."""

    norm: int
    begins: int
    part: Part


def places_of(stretches: list[Outline], position: Position) -> list[Place]:
    """The layers that stand at `position` of their block, in running order, the stem's first.

    The stem's layer is the last one before the branches of the network first part. Networks whose
    first block is a depthwise one keep theirs, as in the authors' code.
    """
    places: list[Place] = []
    latest: int | None = None
    upstream: Outline | None = None
    for outline in stretches:
        found = sorted(
            [*_at_position(outline, position), *_after_depthwise(outline)], key=lambda f: f.norm
        )
        if found and not places and found[0].part == "residual":
            before = _norms(outline, _stem(outline, found[0].begins))
            if before:
                places.append(Place(_module(outline, before[-1]), "stem"))
            elif upstream is not None and latest is not None:
                places.append(Place(_module(upstream, latest), "stem"))
        places += [Place(_module(outline, each.norm), each.part) for each in found]
        if norms := _norms(outline, range(len(outline.steps))):
            latest, upstream = norms[-1], outline
    return list(dict.fromkeys(places))


def _stem(outline: Outline, begins: int) -> frozenset[int]:
    """The steps that lead to the first block, or to a join with convolutions before it."""
    parting = min([begins, *(join.branching for join in _joins_with_convolutions(outline))])
    return outline.between(-1, parting) if parting >= 0 else frozenset()


def _module(outline: Outline, step: int) -> str:
    name = outline.steps[step].module
    assert name is not None, "a norm is a module"
    return name


def _norms(outline: Outline, steps: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(step for step in steps if outline.steps[step].kind == "norm"))


def _convolutions(outline: Outline, steps: Iterable[int]) -> int:
    """How many convolutions follow one another on the longest way through these steps."""
    depths: dict[int, int] = {}
    for step in sorted(steps):
        before = max((depths.get(source, 0) for source in outline.steps[step].inputs), default=0)
        depths[step] = before + (outline.steps[step].kind in ("conv", "depthwise"))
    return max(depths.values(), default=0)


def _joins(outline: Outline) -> Iterator[_Join]:
    for place, step in enumerate(outline.steps):
        if step.kind in ("add", "cat") and len(step.inputs) > 1:
            parting = outline.dominators[place]
            yield _Join(place, parting, tuple(outline.between(parting, end) for end in step.inputs))


def _joins_with_convolutions(outline: Outline) -> list[_Join]:
    return [join for join in _joins(outline) if _convolutions(outline, join.region)]


def _at_position(outline: Outline, position: Position) -> Iterator[_Found]:
    for block in _blocks(outline):
        if any(_is_after_depthwise(outline, norm) for norm in block.norms):
            continue
        # Of two norms P2 is the first, of three the second; of more the middle one.
        places = {"P1": 0, "P2": (len(block.norms) - 1) // 2, "P3": len(block.norms) - 1}
        yield _Found(block.norms[places[position]], block.join.branching, "residual")


def _blocks(outline: Outline) -> list[_Block]:
    """The innermost residual blocks: what is added around several of them is no block."""
    blocks: list[_Block] = []
    for join in _joins(outline):
        branches = sorted(join.branches, key=lambda branch: _convolutions(outline, branch))
        *shortcuts, branch = branches
        norms = _norms_of(outline, join, branch)
        if (
            len(norms) > 1
            and _convolutions(outline, branch) > 1
            and all(_convolutions(outline, shortcut) <= 1 for shortcut in shortcuts)
            and _is_split(outline, join, shortcuts) == (outline.steps[join.step].kind == "cat")
            and not any(block.join.step in join.region for block in blocks)
        ):
            blocks.append(_Block(join, norms))
    return blocks


def _is_split(outline: Outline, join: _Join, shortcuts: list[frozenset[int]]) -> bool:
    """Whether the shortcut is a part of the channels: then the block concatenates, and adds not.

    Additions of parts are steps inside a block (Res2Net), concatenations of wholes gather features
    (Inception, DenseNet, U-Net).
    """
    passed = {join.branching, *(step for shortcut in shortcuts for step in shortcut)}
    return any(outline.steps[step].kind == "split" for step in passed if step >= 0)


def _norms_of(outline: Outline, join: _Join, branch: frozenset[int]) -> tuple[int, ...]:
    """The norms of the branch, with the one after the addition where the last convolution's is."""
    norms = _norms(outline, branch)
    after = outline.users[join.step]
    if (
        len(norms) == _convolutions(outline, branch) - 1
        and len(after) == 1
        and outline.steps[after[0]].kind == "norm"
    ):
        return (*norms, after[0])
    return norms


def _is_after_depthwise(outline: Outline, norm: int) -> bool:
    before = outline.before(norm)
    return before is not None and before.kind == "depthwise"


def _after_depthwise(outline: Outline) -> Iterator[_Found]:
    norms = [
        norm
        for norm in _norms(outline, range(len(outline.steps)))
        if _is_after_depthwise(outline, norm)
    ]
    if not norms:
        return
    joins = _joins_with_convolutions(outline)
    innermost = [join for join in joins if not any(other.step in join.region for other in joins)]
    split = frozenset[int]().union(
        *(join.region for join in innermost if outline.steps[join.step].kind == "cat")
    )
    for norm in norms:
        part: Part = "split depthwise" if norm in split else "depthwise"
        yield _Found(norm, norm, part)
