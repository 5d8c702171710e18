"""Inspecting a checkpoint file: no data, no model code, no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bnaudit._version import __version__
from bnaudit.checkpoints.contents import Contents, read_contents
from bnaudit.checkpoints.lineage import compare
from bnaudit.checkpoints.messages import listed
from bnaudit.checkpoints.parents import Checkpoint
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.errors import InputError
from bnaudit.findings.catalogue import all_rules, find_rule
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import DEFAULT, Policy
from bnaudit.results.comparison import comparison
from bnaudit.results.inspection import FileFacts, Inspection
from bnaudit.results.lineage import Lineage
from bnaudit.results.state import State
from bnaudit.verbs.inspected_layers import inspected

DEAD_CHANNELS = "BN012"


def inspect(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    eps: float | None = None,
    against: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    policy: Policy = DEFAULT,
) -> Inspection:
    """What the checkpoint at `path` alone tells about its BatchNorm layers.

    Layers are found by the names of their tensors, in all files that `measure` reads, and in whole
    pickled models too, of which no code runs. Of a large file only their statistics are read.
    `key`: the place of the weights, a dotted path; found where it is None; the same place is read
    in the files to compare with that have it. `eps`: of the model,
    which only a pickled model tells; 1e-5 is assumed. `against`: the checkpoint, or those, that
    this one comes from, with which its weights and statistics are compared. `policy`: which
    findings are wanted, and their thresholds.

    Raises `InputError` for a file that cannot be read or holds no weights, for one to compare with
    that is of another network, and for a policy that names what does not exist.
    """
    policy = policy.checked()
    contents = read_contents(Path(path), key=key)
    state = state_of_contents(contents, eps=eps)
    parents = [against] if isinstance(against, (str, os.PathLike)) else against
    lineage = _lineage(contents, state, [_parent(Path(x), key) for x in parents], eps)
    multiple = policy.limits(find_rule(DEAD_CHANNELS))["multiple_of_eps"]
    return Inspection(
        tool=__version__,
        file=_facts(contents),
        layers=tuple(inspected(layer, multiple) for layer in state.layers),
        without_statistics=(
            *state.without_statistics,
            *(layer.name for layer in state.incomplete),
        ),
        findings=conclude((state,) if lineage is None else (state, lineage), policy),
        notes=(*_notes(contents, state, eps), *_unjudged(policy)),
        against=None if lineage is None else comparison(lineage),
        multiple_of_eps=multiple,
    )


def _parent(path: Path, key: str | None) -> Contents:
    """The parent's weights, at the child's place where it has that one too, else where found."""
    try:
        return read_contents(path, key=key)
    except InputError:
        return read_contents(path)


def _lineage(
    contents: Contents, state: State, parents: Sequence[Contents], eps: float | None
) -> Lineage | None:
    if not parents:
        return None
    states = [state_of_contents(parent, eps=eps) for parent in parents]
    checkpoints = [Checkpoint(*one) for one in zip(parents, states, strict=True)]
    return compare(Checkpoint(contents, state), checkpoints)


def _facts(contents: Contents) -> FileFacts:
    return FileFacts(
        path=str(contents.path),
        format=contents.format,
        bytes=contents.bytes,
        key=contents.key,
        others=contents.others,
        tensors=len(contents.tensors),
        elements=sum(tensor.elements for tensor in contents.tensors.values()),
        steps=contents.steps,
    )


def _unjudged(policy: Policy) -> Iterator[str]:
    """Where nothing of what is wanted can be told without data."""
    told = [rule for rule in all_rules() if rule.subject in (State, Lineage)]
    if not any(policy.wants(rule) for rule in told):
        yield "none of the selected findings can be told from a checkpoint alone: measure on data"


def _notes(contents: Contents, state: State, eps: float | None) -> Iterator[str]:
    if not state.layers and not state.incomplete:
        yield "no BatchNorm layers with running statistics in it: nothing to inspect"
    assumed = {layer.eps for layer in state.layers if not layer.eps_known}
    if assumed:
        values = ", ".join(f"{value:g}" for value in assumed)
        yield f"eps is assumed to be {values}: the file does not tell it, --eps does"
    told = {layer.eps for layer in state.layers} - {eps}
    if eps is not None and told:
        values = ", ".join(f"{value:g}" for value in sorted(told))
        yield f"the model in the file has its own eps, {values}, which --eps does not replace"
    if contents.odd:
        names = listed((f"{name} {why}" for name, why in contents.odd.items()), 2)
        yield f"{len(contents.odd)} tensors are not read: {names}"
