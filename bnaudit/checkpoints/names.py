"""Which name in a checkpoint is which name in a model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from bnaudit.checkpoints.messages import listed, one_line, shortened
from bnaudit.checkpoints.prefixes import Renaming, find_renaming, fits

# How many names of each kind a message shows, and how many it compares to find the nearest.
_SHOWN = 5
_COMPARED = 200


@dataclass(frozen=True)
class ShapeMismatch:
    """A tensor whose shape in the file is not the one in the model; `name` is the model's."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.found} in the file, {self.expected} in the model"


@dataclass(frozen=True, eq=False)
class Match:
    """How a checkpoint's tensors fit a model's.

    `tensors`: what fits, by the model's names; `sources`: its names in the file, as far as they are
    known. `stripped`, `added`: the prefix that was taken off
    the file's names and the one that was put on, "" where none; in `stripped`, "*_orig_mod." stands
    for wrappers' names (`torch.compile`, FSDP) taken out further in. `missing`: in the model, not
    in the file. `unexpected`: in the file, not in the model, by the file's names. `ignored`: on one
    side only, and of no consequence: the counter of averaged models, the counter of a BatchNorm
    layer that keeps none here, extra state that is no tensor. `without_counter`: layers whose
    `num_batches_tracked` is not in the file ("" is the model itself). `renaming`: the model's name
    of any name in the file.
    """

    tensors: dict[str, Tensor]
    sources: Mapping[str, str]
    stripped: str
    added: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[ShapeMismatch, ...]
    ignored: tuple[str, ...]
    without_counter: tuple[str, ...]
    renaming: Renaming

    @property
    def complete(self) -> bool:
        """Whether everything that matters in the model is in the file, and nothing else is."""
        return not (self.missing or self.unexpected or self.mismatched)


def match_names(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> Match:
    """Pair the names of a checkpoint (`tensors`) with those of a model (`expected`).

    A dotted prefix of up to three components is taken off, put on, or exchanged where that makes
    more names and shapes match: `module.conv.weight` in a file is `conv.weight` in a model. Names
    that wrappers put in (`_orig_mod`, `_fsdp_wrapped_module`, `_checkpoint_wrapped_module`) are
    looked through anywhere, on both sides. Lazy parameters match any shape. A missing name that is
    tied in the model to one that matched takes the same tensor. Entries that are not tensors are
    left out on both sides. Nothing is modified.
    """
    found = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    wanted = {name: value for name, value in expected.items() if isinstance(value, Tensor)}
    renaming = find_renaming(
        {name: tuple(value.shape) for name, value in found.items()},
        {name: shape_of(value) for name, value in wanted.items()},
    )
    matching: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    unexpected: list[str] = []
    mismatched: dict[str, ShapeMismatch] = {}
    # A name that needs no change gives way to one that has the prefix, and may fill a gap.
    for name, value in sorted(found.items(), key=lambda item: not renaming.covers(item[0])):
        own = renaming.of(name)
        if own not in wanted or own in matching or own in mismatched:
            unexpected.append(name)
        elif fits(tuple(value.shape), (shape := shape_of(wanted[own]))):
            matching[own] = value
            sources[own] = name
        else:
            mismatched[own] = ShapeMismatch(own, tuple(value.shape), shape or ())
    missing = [name for name in wanted if name not in matching and name not in mismatched]
    for name, twin in _tied(missing, wanted, matching).items():
        matching[name], sources[name] = matching[twin], sources[twin]
    missing = [name for name in missing if name not in matching]
    harmless = [name for name in unexpected if _is_harmless(renaming.of(name), wanted, matching)]
    harmless += [name for name in missing if _last(name) == "n_averaged"]
    no_tensor = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    counters = [name for name in missing if _last(name) == "num_batches_tracked"]
    return Match(
        tensors=matching,
        sources=sources,
        stripped=renaming.stripped,
        added=renaming.added,
        missing=tuple(n for n in missing if n not in {*harmless, *counters}),
        unexpected=tuple(n for n in unexpected if n not in set(harmless)),
        mismatched=tuple(mismatched.values()),
        ignored=(*harmless, *no_tensor),
        without_counter=tuple(name.rpartition(".")[0] for name in counters),
        renaming=renaming,
    )


def describe_mismatch(match: Match) -> str:
    """One line on how a checkpoint does not fit: counts, the first names of each kind, a remedy.

    Missing names come with the nearest of the file's unexpected names, and those that have one come
    first. Where nothing but statistics is missing, the model is not what is wrong.
    """
    if match.tensors and _only_statistics_are_lost(match):
        return _describe_lost_statistics(match)
    count = len(match.tensors)
    lost = len(match.missing) + len(match.mismatched)
    parts = [f"the checkpoint does not fit the model: {count} of {count + lost} tensors match"]
    if match.missing:
        names = listed(_with_nearest(match), _SHOWN, width=140)
        parts.append(f"{len(match.missing)} missing in the file: {names}")
    if match.unexpected:
        names = listed(match.unexpected, _SHOWN)
        parts.append(f"{len(match.unexpected)} unexpected in the file: {names}")
    if match.mismatched:
        shapes = listed(map(str, match.mismatched), _SHOWN, width=140)
        parts.append(f"{len(match.mismatched)} of another shape: {shapes}")
    prefixes = (("without", match.stripped), ("with", match.added))
    changed = " and ".join(f"{word} {prefix!r}" for word, prefix in prefixes if prefix)
    if changed:
        parts.append(f"the file's names were taken {changed} in front")
    remedy = "name the model it was saved from (--model, --model-arg), or another part of the file "
    remedy += "(--checkpoint-key)"
    # Without a single tensor that fits, there is nothing to allow.
    parts.append(f"{remedy}, or load only what fits (--allow-mismatch)" if count else remedy)
    return one_line("; ".join(parts))


_STATISTICS = ("running_mean", "running_var")


def _only_statistics_are_lost(match: Match) -> bool:
    if match.unexpected or match.mismatched or not match.missing:
        return False
    return all(_last(name) in _STATISTICS for name in match.missing)


def _describe_lost_statistics(match: Match) -> str:
    lost = [leaf for leaf in _STATISTICS if any(_last(name) == leaf for name in match.missing)]
    layers = list(dict.fromkeys(name.rpartition(".")[0] or "itself" for name in match.missing))
    noun = "layer" if len(layers) == 1 else "layers"
    return one_line(
        f"the file has no {' and no '.join(lost)} of {len(layers)} BatchNorm {noun} "
        f"({listed(layers, _SHOWN)}), and all else of the model: statistics were lost where it was "
        "written; write it again from the whole state_dict(), or load what there is "
        "(--allow-mismatch) and recalibrate"
    )


def _with_nearest(match: Match) -> list[str]:
    """The missing names, each with the nearest unexpected one, those that have one first."""
    by_renamed = {match.renaming.of(name): name for name in match.unexpected[:_COMPARED]}
    near: list[str] = []
    alone: list[str] = []
    for name in match.missing[:_COMPARED]:
        closest: list[str] = []
        if len(near) < _SHOWN:  # the rest is only counted
            closest = difflib.get_close_matches(name, by_renamed, n=1, cutoff=0.75)
        if closest:
            near.append(f"{shortened(name, 60)} (there is {shortened(by_renamed[closest[0]], 60)})")
        else:
            alone.append(name)
    return [*near, *alone, *match.missing[_COMPARED:]]


def shape_of(tensor: Tensor) -> tuple[int, ...] | None:
    """The shape of a tensor; None of a lazy one, which has none yet."""
    return None if is_lazy(tensor) else tuple(tensor.shape)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_harmless(own: str, wanted: Mapping[str, Tensor], matching: Mapping[str, Tensor]) -> bool:
    """Whether a name that the model lacks may be left out of it without a word."""
    layer, _, last = own.rpartition(".")
    if last == "n_averaged":
        return True
    mean = f"{layer}.running_mean" if layer else "running_mean"
    # A frozen BatchNorm has statistics and no counter.
    return last == "num_batches_tracked" and own not in wanted and mean in matching


def _tied(
    missing: list[str], wanted: Mapping[str, Tensor], matching: Mapping[str, Tensor]
) -> dict[str, str]:
    """For those missing names that are the same memory in the model as a matching one: which."""
    loaded = {_memory(wanted[name]): name for name in matching}
    places = {name: _memory(wanted[name]) for name in missing}
    return {name: loaded[p] for name, p in places.items() if p is not None and p in loaded}


def _memory(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    if is_lazy(tensor) or tensor.is_meta or tensor.numel() == 0:
        return None
    try:
        return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
    except RuntimeError:  # a tensor without storage of its own
        return None
