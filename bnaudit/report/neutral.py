"""Characters that would command a terminal, from names that anybody may have given.

A layer, a file or a key may be called anything, also `\\x1b[2J`, which clears the screen. Every
console that shows results passes them through here, in one place: visible, and without effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.segment import Segment

_REPLACEMENT = "\ufffd"

_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, delete, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # that turn the direction of writing
    "\u2028\u2029\ud800-\udfff]"  # other ends of lines, halves of surrogate pairs
)


def neutral(text: str) -> str:
    """The text with a visible character in place of each that is a command: ␛ for an escape."""
    return _COMMANDS.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of it
    return "\u2421" if code == 0x7F else _REPLACEMENT


def made_neutral(console: Console) -> Console:
    """The console, from now on with everything that it prints made neutral, its own styles kept."""
    console.push_render_hook(_Hook())
    return console


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Neutral(renderable) for renderable in renderables]


class _Neutral:
    """Something to print, with its text made neutral once it is laid out."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _segments(console.render(self._inner, options))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)


def _segments(segments: Iterable[Segment]) -> Iterable[Segment]:
    for segment in segments:
        if segment.control:
            yield segment
        else:
            yield Segment(neutral(segment.text), segment.style)
