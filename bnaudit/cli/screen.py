"""What a user sees: tables on stdout, messages and progress on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bnaudit.cli.rank import is_first
from bnaudit.report.neutral import made_neutral

PLAIN_EVERY = 10.0
"""Seconds between plain progress lines where stderr is no terminal."""


def messages() -> Console:
    """The console for messages and progress: stderr. Of several ranks only the first one's."""
    return made_neutral(_console(stderr=True))


def tables() -> Console:
    """The console for results: stdout. Of several ranks only the first one's."""
    return made_neutral(_console(stderr=False))


def _console(*, stderr: bool) -> Console:
    if is_first():
        return Console(stderr=stderr, highlight=False)
    return Console(stderr=stderr, highlight=False, quiet=True, force_terminal=False)


def quiet() -> AbstractContextManager[None]:
    """Nothing on the screen."""
    return nullcontext()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")


@contextmanager
def progress(
    console: Console, what: str, total: int | None, unit: str = "samples"
) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on a terminal, now and then a plain line elsewhere."""
    if console.is_terminal:
        columns = (
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            _Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda samples: bar.update(task, advance=samples)
        return
    yield _PlainProgress(console, what, total, unit)


class _PlainProgress:
    def __init__(self, console: Console, what: str, total: int | None, unit: str) -> None:
        self._console, self._what, self._total, self._unit = console, what, total, unit
        self._start = self._last = time.monotonic()
        self._done = 0

    def __call__(self, samples: int) -> None:
        self._done += samples
        now = time.monotonic()
        if now - self._last < PLAIN_EVERY:
            return
        self._last = now
        rate = self._done / (now - self._start)
        of, left = "", ""
        if self._total:
            of = f" of {self._total:,}"
            left = f", {(self._total - self._done) / rate:.0f} s left"
        self._console.print(f"{self._what}: {self._done:,}{of} {self._unit}, {rate:.1f}/s{left}")


def print_written(console: Console, written: Sequence[Path]) -> None:
    """Where the files went: the folder once, then the names."""
    if not written:
        return
    names = ", ".join(path.name for path in written if path.suffix != ".svg")
    plots = " (plots also as .svg)" if any(path.suffix == ".svg" for path in written) else ""
    console.print(Text(f"\nwritten to {written[0].parent}: {names}{plots}"))


def say(console: Console, line: str) -> None:
    """A line of what is going on."""
    console.print(Text(line))


def say_whole(console: Console, line: str) -> None:
    """A line that may be long and is to be searched for: never broken by us."""
    console.print(Text(line), soft_wrap=True)


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Each on a line of its own."""
    for line in lines:
        console.print(Text(line))


def print_command(console: Console, what: str, command: str) -> None:
    """A command to copy: never broken into lines by us."""
    console.print(Text(f"{what} {command}"), soft_wrap=True)
