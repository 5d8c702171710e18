"""A checkpoint file into a model, with a report of what was done."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnaudit.checkpoints.formats import Format
from bnaudit.checkpoints.layout import StateDict, find_state_dict
from bnaudit.checkpoints.messages import first_line, input_error
from bnaudit.checkpoints.names import Match, describe_mismatch, match_names
from bnaudit.checkpoints.read import Checkpoint, read_checkpoint


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from where.

    `path`, `format`, `sha256`: of the file. `key`: the place in it that was taken, "" for the top
    level; `other_keys`: the other places that hold weights. `loaded`: how many tensors of the model
    have their values from the file; `names`: which name in the file's state dict each of them has,
    without those that a module renamed, or made of others, while it was loaded. `missing`,
    `mismatched`: names in the model that stayed as they were, the latter with both shapes. The
    other fields are those of `Match`.
    """

    path: str
    format: Format
    sha256: str
    key: str
    other_keys: tuple[str, ...]
    stripped: str
    added: str
    loaded: int
    names: Mapping[str, str] = field(repr=False)
    dtypes: Mapping[str, torch.dtype] = field(repr=False)
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    ignored: tuple[str, ...]
    without_counter: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, checkpoint: Checkpoint, weights: StateDict, match: Match) -> LoadReport:
        """What came of loading the `weights` that were found in a checkpoint, as far as they match.

        The sources of the match are names in `weights`.
        """
        return cls(
            path=str(path),
            format=checkpoint.format,
            sha256=checkpoint.sha256,
            key=weights.key,
            other_keys=weights.others,
            stripped=match.stripped,
            added=match.added,
            loaded=len(match.tensors),
            names=match.sources,
            dtypes={name: weights.tensors[own].dtype for name, own in match.sources.items()},
            missing=match.missing,
            unexpected=match.unexpected,
            mismatched=tuple(map(str, match.mismatched)),
            ignored=match.ignored,
            without_counter=match.without_counter,
        )


def load_checkpoint(
    model: nn.Module,
    path: Path,
    *,
    key: str | None = None,
    allow_mismatch: bool = False,
    trust_pickle: bool = False,
) -> LoadReport:
    """Load the weights in the file at `path` into `model`, in place.

    `key`: where in the file they are, see `find_state_dict`. `allow_mismatch`: load what fits where
    not everything does. `trust_pickle`: see `read_checkpoint`. A BatchNorm layer whose
    `num_batches_tracked` is not in the file keeps its own, 0 in a new model. Modules that rename
    the tensors of files from their older versions (`_load_from_state_dict`) get to do so.

    Raises `InputError` where the file cannot be read or holds no weights, where names or shapes
    differ (unless allowed), and where none match. The model then is as it was before.
    """
    checkpoint = read_checkpoint(Path(path), trust_pickle=trust_pickle)
    weights = find_state_dict(checkpoint, key=key)
    match = match_names(weights.tensors, model.state_dict())
    if not match.complete:
        match = _match_of_older_version(model, weights, match)
    if not match.tensors or not (match.complete or allow_mismatch):
        raise input_error(path, describe_mismatch(match))
    _load(model, match.tensors, Path(path))
    return LoadReport.of(path, checkpoint, weights, match)


def _match_of_older_version(model: nn.Module, weights: StateDict, match: Match) -> Match:
    """What fits after the model's own modules have renamed tensors of an older version of theirs.

    torchvision's detection heads, for one, take the names of their published weights so. A module
    does this only while it loads, so the model is loaded, looked at, and put back.
    """
    before = model.state_dict()
    if not _renames_while_loading(model) or any(map(_is_lazy, before.values())):
        return match
    of = match.renaming.of
    entries = {of(name): tensor for name, tensor in weights.tensors.items()} | match.tensors
    modules = {
        of(f"{name}.")[:-1] if name else "": version
        for name, version in (weights.metadata or {}).items()
    }
    kept = {name: value.clone() for name, value in _tensors(before).items()}
    counters = {f"{layer}.num_batches_tracked".lstrip(".") for layer in match.without_counter}
    try:
        for name in counters:
            before[name].fill_(-1)  # what a file brings is never negative
        result = model.load_state_dict(_with_metadata(entries, modules), strict=False)
        after = {name: value.clone() for name, value in _tensors(model.state_dict()).items()}
    except Exception:  # shapes differ, or a module refuses: the comparison of names stands
        return match
    finally:
        _put_back(model, kept)
    counters = {name for name in counters if after[name] == -1}
    ignored = {of(name) for name in match.ignored}
    in_file = {of(name): name for name in weights.tensors}
    missing = tuple(n for n in result.missing_keys if n not in counters | match.tensors.keys())
    unexpected = tuple(in_file.get(n, n) for n in result.unexpected_keys if n not in ignored)
    if len(missing) + len(unexpected) >= len(match.missing) + len(match.unexpected):
        return match
    absent = {*missing, *counters}
    tensors = {name: value for name, value in after.items() if name not in absent}
    return replace(
        match,
        tensors=tensors,
        sources=_still_from(weights.tensors, match.sources, tensors),
        missing=missing,
        unexpected=unexpected,
        mismatched=(),
        without_counter=tuple(n.rpartition(".")[0] for n in before if n in counters),
    )


def _still_from(
    found: Mapping[str, Tensor], sources: Mapping[str, str], loaded: Mapping[str, Tensor]
) -> dict[str, str]:
    """Those of `sources` under whose name the model did load the file's values."""
    return {
        name: source
        for name, source in sources.items()
        if name in loaded
        and loaded[name].shape == found[source].shape
        and bool(torch.isclose(found[source].to(loaded[name]), loaded[name], 0, 0, True).all())
    }


def _renames_while_loading(model: nn.Module) -> bool:
    plain = nn.Module._load_from_state_dict
    return any(
        type(module)._load_from_state_dict is not plain
        and not type(module).__module__.startswith("torch.nn.")
        for module in model.modules()
    )


def _load(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    # The names are the model's own by now, so the versions are too: without them a BatchNorm layer
    # would do no harm, but torchvision's MNASNet refuses to load.
    metadata = getattr(model.state_dict(), "_metadata", {})
    try:
        model.load_state_dict(_with_metadata(tensors, metadata), strict=False)
    except Exception as error:  # a module's own loading can fail in any way
        what = f"{type(model).__name__} refuses its tensors ({first_line(error)})"
        raise input_error(path, f"{what}; check --model and --model-arg") from None


def _with_metadata(tensors: Mapping[str, Tensor], metadata: object) -> OrderedDict[str, Tensor]:
    state: Any = OrderedDict(tensors)
    state._metadata = metadata
    return state  # type: ignore[no-any-return]


@torch.no_grad()
def _put_back(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    for name, value in _tensors(model.state_dict()).items():
        # A module may have built itself anew for an older file.
        if name in kept and kept[name].shape == value.shape:
            value.copy_(kept[name])


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _is_lazy(value: object) -> bool:
    return isinstance(value, Tensor) and is_lazy(value)
