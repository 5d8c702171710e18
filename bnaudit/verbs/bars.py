"""What a verb shows of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Bar = Callable[[str, int | None, str], AbstractContextManager[Callable[[int], None]]]
"""(what, how much in all, of what: samples, layers, …) -> a context that gives `advance(done)`."""


@contextmanager
def no_bar(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Nothing on the screen."""
    yield lambda done: None
