"""Tables with a row a layer, which must stay readable for models of hundreds of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.table import Table

LONG_TABLE = 24
"""More layers than this are shortened to the worst ones unless all are asked for."""

WORST = 12

WIDE = 72
"""Columns of a terminal below which a table leaves figures out, so that none is cut."""

L = TypeVar("L")


def shortened(
    layers: Sequence[L], badness: Callable[[L], float], of_largest: str, *, all_layers: bool
) -> tuple[Sequence[L], str | None]:
    """The rows to show, in the order given, and the title that says which those are."""
    if len(layers) <= LONG_TABLE or all_layers:
        return layers, None
    worst = sorted(range(len(layers)), key=lambda i: badness(layers[i]))[-WORST:]
    title = f"The {WORST} layers of largest {of_largest}, of {len(layers)} (--all shows all)"
    return [layers[i] for i in sorted(worst)], title


def table_of_layers(headers: Sequence[str], title: str | None) -> Table:
    """A column of names, which fold, and a column a header, which do not."""
    table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False, title=title, title_justify="left")
    table.add_column("layer", overflow="fold", ratio=1, min_width=8, vertical="bottom")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def some(names: Sequence[str], most: int = 6) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
