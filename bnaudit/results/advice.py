"""Advice: the remedies for what an Audit found, ranked, each sentence with where its figures stand.

No torch: everything is read from the Audit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bnaudit.results.audit import ModelInfo, Request
from bnaudit.results.documents import read_document, write_document

SCHEMA = 1

Outcome = Literal["better", "no better", "divided", "open"]
"""How the network scores by the statistics of mini-batches of the data, against as deployed."""

_STEP = re.compile(r"(?:^|\.)([A-Za-z_]\w*)|\[(\d+)\]")


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the paths in audit.json of what it rests on.

    `shown[i]` is the value at `paths[i]` as the text writes it; empty where the text tells the
    value in words, as "no labels" for a figure that is null. Every figure of the text is shown.
    """

    text: str
    paths: tuple[str, ...]
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Remedy:
    """Something to do: `name` is stable, `title` the same in words, `rank` counts from 1.

    `sentences`: the evidence. `cost`: what it takes. `command`: what does it, where a command does.
    """

    name: str
    title: str
    rank: int
    sentences: tuple[Sentence, ...]
    cost: str
    command: str | None = None


@dataclass(frozen=True)
class Advice:
    """The remedies that an Audit speaks for, the first first, and those it speaks against.

    `outcome`: "better" where the network scores significantly better by statistics of mini-batches
    of these data than as deployed, "no better" where that is not shown, "divided" where accuracy
    is significantly better and the loss is significantly worse, "open" without labels, or where the
    mini-batches' own noise may hide it. It is what decides about
    recalibration: a large shift alone is no fault. `versions`, `device` and `dtype` are the
    Audit's. Paths resolve in its audit.json (`value_at`).
    """

    source: str
    versions: dict[str, str]
    device: str
    dtype: str
    model: ModelInfo
    outcome: Outcome
    remedies: tuple[Remedy, ...]
    against: tuple[Remedy, ...] = ()
    notes: tuple[str, ...] = ()
    request: Request | None = None
    schema: int = SCHEMA

    def to_json(self) -> str:
        """As a JSON document."""
        return write_document(self.schema, asdict(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "advice") -> Advice:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        remedy = "give what bnaudit advise --json wrote"
        return read_document(cls, text, schema=SCHEMA, source=source, remedy=remedy)

    def __repr__(self) -> str:
        names = ", ".join(remedy.name for remedy in self.remedies)
        return f"<Advice for {self.model.source}: {names}>"


def value_at(document: Any, path: str) -> Any:
    """The value at a path such as `layers[7].total_shift.value` of a document read from JSON.

    Raises KeyError with the path where there is none.
    """
    value = document
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise KeyError(path)
        value = _entry(value, step.group(1) or int(step.group(2)), path)
        at = step.end()
    return value


def _entry(value: Any, key: str | int, path: str) -> Any:
    if isinstance(key, int):
        if isinstance(value, Sequence) and not isinstance(value, str) and key < len(value):
            return value[key]
    elif isinstance(value, dict) and key in value:
        return value[key]
    raise KeyError(path)
