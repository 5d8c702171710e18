"""What the gate says: one verdict, the checks that it rests on, and what was left out of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from bnaudit.results.changes import Changes, Side
from bnaudit.results.documents import read_document, write_document
from bnaudit.results.findings import Finding, Severity

GATE_SCHEMA = 1

Outcome = Literal["pass", "fail", "inconclusive"]

OUTCOMES: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
"""The gravest first."""

Kind = Literal["finding", "limit", "regression", "measurement"]
"""A finding; an absolute limit of the settings; a figure against the baseline; whether there was
anything to measure (no BatchNorm layers, activations that are not finite)."""


@dataclass(frozen=True)
class Check:
    """One thing that the gate looked at, with its outcome.

    `name`: stable, of the kind: the code of a finding (`BN101`), the setting of a limit
    (`max_layer_esm`), the figure of a regression (`layer_esm`), `finite` or `layers`. `title` is
    the same in a few words. `sentence` tells it with the figures; `layers`: whom it concerns.
    `severity` is that of a finding, else "error". `value` and `limit`: the figure and what it was
    held against, in its own unit.
    """

    kind: Kind
    name: str
    title: str
    outcome: Outcome
    sentence: str
    severity: Severity = "error"
    layers: tuple[str, ...] = ()
    remedy: str | None = None
    command: str | None = None
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Waived:
    """A finding that does not count, and why: `setting` is the line of the settings that says so,
    "baseline" where it stood there already, "tolerance" where it is new but no figure that it rests
    on got worse than in the baseline beyond tolerance and noise, "same weights" where it is about
    the stored state of the very same weights, or "accepted" where a baseline was written."""

    finding: Finding
    setting: str


@dataclass(frozen=True, repr=False)
class Gate:
    """The verdict on a checkpoint. It is true where it passes.

    `checks`: those that fail first, then the inconclusive ones. `waived`: findings that are grave
    enough but do not count. `findings`: the rest of what was found, below the severity that counts.
    `unused_ignores`: settings that ignore something which is not there any more. `changes`: against
    the baseline, where there is one. `notes`: of the measurement.
    """

    outcome: Outcome
    sentence: str
    subject: Side
    checks: tuple[Check, ...]
    waived: tuple[Waived, ...] = ()
    findings: tuple[Finding, ...] = ()
    unused_ignores: tuple[str, ...] = ()
    changes: Changes | None = None
    notes: tuple[str, ...] = ()
    exit_code: int = 0
    schema: int = field(default=GATE_SCHEMA)

    def with_outcome(self, outcome: Outcome) -> tuple[Check, ...]:
        """The checks of that outcome."""
        return tuple(check for check in self.checks if check.outcome == outcome)

    @property
    def passed(self) -> bool:
        """Whether the exit code is 0: passed, or inconclusive where that counts as a pass."""
        return self.exit_code == 0

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        open_checks = [check for check in self.checks if check.outcome != "pass"]
        lines = [f"<Gate: {self.outcome}. {self.sentence}>"]
        lines += [f"{check.outcome} {check.name}: {check.sentence}" for check in open_checks]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The document `gate.json`."""
        return write_document(self.schema, asdict(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "gate") -> Gate:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        remedy = "run the gate anew: bnaudit gate"
        return read_document(cls, text, schema=GATE_SCHEMA, source=source, remedy=remedy)
