"""Whether a model's tensors are those of a checkpoint, and with which arguments they would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bnaudit.checkpoints.names import ShapeMismatch
from bnaudit.checkpoints.prefixes import find_renaming, fits
from bnaudit.errors import InputError
from bnaudit.targets.outlines import Shapes, outline_of

CLASSES = (1000, 91, 21, 400)
"""How many classes torchvision's models have by default: ImageNet, COCO, VOC, Kinetics."""

LIKELY = 40
"""More tensors than this that differ are no classifier and no auxiliary head."""

_CHANGES = 3

Arguments = Mapping[str, object]


@dataclass(frozen=True)
class Difference:
    """What a checkpoint and a model do not share.

    `shared`: how many tensors do fit. `missing`: in the model only. `unexpected`: in the file only,
    by its names. `mismatched`: in both, with other shapes. Counters of batches do not count, nor
    does the counter of averaged models: a checkpoint loads without them.
    """

    shared: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[ShapeMismatch, ...]

    @property
    def size(self) -> int:
        """How many tensors differ."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)

    @property
    def exact(self) -> bool:
        """Whether there is nothing that differs, and something that does not."""
        return self.size == 0 and self.shared > 0


@dataclass(frozen=True)
class Fit:
    """A model, by its spec and arguments, beside a checkpoint."""

    spec: str
    args: Arguments = field(compare=False)
    difference: Difference = field(repr=False)

    @property
    def name(self) -> str:
        """The model's name without torchvision or timm in front."""
        return self.spec.partition(":")[2]


def difference(found: Shapes, expected: Shapes) -> Difference:
    """What the tensors of a checkpoint (`found`) and of a model (`expected`) do not share.

    Prefixes and wrappers in the file's names are looked through as in loading it.
    """
    renaming = find_renaming(found, expected)
    named: dict[str, tuple[int, ...]] = {}
    unexpected = []
    # A name that needs no change gives way to one that has the prefix.
    for name in sorted(found, key=lambda name: not renaming.covers(name)):
        own = renaming.of(name)
        if own in expected and own not in named:
            named[own] = found[name]
        elif not _is_counter(name):
            unexpected.append(name)
    fitting = {name for name, shape in named.items() if fits(shape, expected[name])}
    return Difference(
        shared=len(fitting),
        missing=tuple(n for n in expected if n not in named and not _is_counter(n)),
        unexpected=tuple(unexpected),
        mismatched=tuple(
            ShapeMismatch(name, shape, expected[name])
            for name, shape in named.items()
            if name not in fitting
        ),
    )


def fit(spec: str, found: Shapes, args: Arguments | None = None) -> Fit:
    """The model `spec` beside the tensors `found`, with the arguments under which they fit best.

    Tried are, while they bring the two nearer: another number of classes, none at all, another
    number of input channels, and auxiliary heads or none. Every choice is verified by building it.
    `args`: given, and not changed.

    Raises `InputError` where the model cannot be built with `args`.
    """
    given = dict(args or {})
    best = Fit(spec, given, difference(found, outline_of(spec, given)))
    for _ in range(_CHANGES):
        if best.difference.exact or best.difference.size > LIKELY:
            break
        nearer = min(_variants(best, found, given), key=_size, default=best)
        if _size(nearer) >= _size(best):
            break
        best = nearer
    return best


def _size(candidate: Fit) -> int:
    return candidate.difference.size


def _variants(candidate: Fit, found: Shapes, given: Arguments) -> Iterator[Fit]:
    """The model with one more argument each; those that it does not take are passed over."""
    for change in _changes(candidate.difference):
        if given.keys() & change.keys():
            continue
        args = {**candidate.args, **change}
        try:
            expected = outline_of(candidate.spec, args)
        except InputError:
            continue
        variant = Fit(candidate.spec, args, difference(found, expected))
        yield variant
        if variant.difference.exact:
            return


def _changes(apart: Difference) -> Iterator[Arguments]:
    # One number each, in the order in which they come up.
    for classes in dict.fromkeys(_numbers_of_classes(apart)):
        yield {"num_classes": classes}
    for channels in dict.fromkeys(_input_channels(apart)):
        yield {"in_chans": channels}
    auxiliary = [n for n in (*apart.missing, *apart.unexpected) if "aux" in n.lower()]
    if auxiliary:
        heads = auxiliary[0] in apart.unexpected
        yield {"aux_logits": heads}
        yield {"aux_loss": heads}
    if apart.missing and not (apart.unexpected or apart.mismatched):
        yield {"num_classes": 0}


def _numbers_of_classes(apart: Difference) -> Iterator[int]:
    """What the first dimension of the tensors of another shape may mean."""
    for tensor in apart.mismatched:
        if not tensor.found or not tensor.expected or tensor.found[1:] != tensor.expected[1:]:
            continue
        outputs, usual = tensor.found[0], tensor.expected[0]
        yield outputs
        for classes in CLASSES:  # of detection models: so many outputs for each class
            if usual % classes == 0 and usual != classes and outputs % (usual // classes) == 0:
                yield outputs // (usual // classes)


def _input_channels(apart: Difference) -> Iterator[int]:
    """The second dimension of convolutions that differ in nothing else."""
    for tensor in apart.mismatched:
        found, expected = tensor.found, tensor.expected
        weights = len(found) == len(expected) >= 3
        if weights and (found[0], *found[2:]) == (expected[0], *expected[2:]):
            yield found[1]


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in ("num_batches_tracked", "n_averaged")
