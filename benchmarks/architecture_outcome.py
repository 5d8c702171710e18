"""What became of architectures that were tried, and the file in which a run keeps it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

Stage = Literal["look", "build", "plain", "measure", "exact"]
"""Look for BatchNorm in the outline, build the model, run a plain forward; then the two verbs."""


@dataclass(frozen=True)
class Failure:
    """The stage that did not succeed, and one line that says why.

    `limited`: by a limit of the run, which another run may raise.
    """

    stage: Stage
    reason: str
    limited: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture.

    `family` is the module that defines it. `reached`: how many of its `bn_layers` the plain forward
    came to. `side`: of the images that it ran on, pixels; `built_for` the same where the model was
    built for it. `residual`: the largest ESM after `exact`. `seconds`: processor time.
    """

    name: str
    family: str = ""
    parameters: int = 0
    bn_layers: int = 0
    reached: int = 0
    side: int | None = None
    built_for: int | None = None
    attributed: bool = False
    residual: float | None = None
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    def failed(self, *stages: Stage) -> bool:
        """Whether one of `stages` failed."""
        return any(failure.stage in stages for failure in self.failures)

    @property
    def ran(self) -> bool:
        """Whether it has BatchNorm, and a plain forward in eval mode ran."""
        return self.bn_layers > 0 and not self.failed("look", "build", "plain")

    @property
    def measured(self) -> bool:
        """Whether `measure` did all that it has to."""
        return self.ran and not self.failed("measure")

    @property
    def exact(self) -> bool:
        """Whether `exact` did all that it has to, and left a residual that is rounding."""
        return self.ran and self.residual is not None and not self.failed("exact")

    @property
    def limited(self) -> bool:
        """Whether a limit of the run stood in its way."""
        return any(failure.limited for failure in self.failures)

    def with_failure(self, failure: Failure) -> Outcome:
        """The same with one more stage that failed."""
        return replace(self, failures=(*self.failures, failure))


@dataclass(frozen=True)
class Run:
    """What was run: the library, the limits of one model, the versions.

    `seconds` of the processor, `gigabytes` of memory (10^9 bytes), `millions` of parameters.
    """

    library: str
    seconds: float
    gigabytes: float
    millions: float
    versions: str


class Cache:
    """A file of JSON lines: what was run, then one outcome a line."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path, self._run = path, run

    def begin(self) -> None:
        """An empty one, whatever was there."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(asdict(self._run)) + "\n", encoding="utf-8")

    def go_on(self) -> list[Outcome]:
        """What an earlier run found; under other limits, without what its own kept out.

        Ends the program where there was none, or one of other versions.
        """
        if not self._path.exists():
            sys.exit(f"--continue: there is no {self._path}: run without it first")
        first, *lines = self._path.read_text(encoding="utf-8").splitlines()
        before = Run(**json.loads(first))
        if (before.library, before.versions) != (self._run.library, self._run.versions):
            sys.exit(f"--continue: {self._path} is from {before.versions}: run without it")
        known = [_outcome(line) for line in lines]
        if before != self._run:
            most = self._run.millions * 1e6
            known = [one for one in known if not one.limited or one.parameters > most]
            self.begin()
            for one in known:
                self.add(one)
        return known

    def add(self, outcome: Outcome) -> None:
        """One more line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")


def _outcome(line: str) -> Outcome:
    known = json.loads(line)
    known["notes"] = tuple(known["notes"])
    known["failures"] = tuple(Failure(**failure) for failure in known["failures"])
    return Outcome(**known)
