"""What sharing statistics between the calls of a layer costs, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnaudit.report.judged import printable
from bnaudit.report.numbers import interval, loss, percent, points, short, signed_loss, span
from bnaudit.report.tables import table_of_layers
from bnaudit.results.sharing import Sharing


def print_sharing(sharing: Sharing | None, console: Console) -> None:
    """The layers that are called several times, and the outputs under separate statistics."""
    if sharing is None:
        return
    console.print(Text("\nLayers called several times in a forward", style="bold"))
    if sharing.note is not None:
        console.print(Text(printable(sharing.note)))
        return
    console.print(_calls(sharing))
    for line in _outputs(sharing):
        console.print(Text(line))


def _calls(sharing: Sharing) -> Table:
    table = table_of_layers(["call", "off by", "95% interval", "floor"], None)
    for layer in sharing.layers:
        for call in layer.calls:
            name = Text(printable(layer.name) if call.call == 0 else "")
            one = call.from_shared
            if one is None:
                table.add_row(name, str(call.call + 1), "–", "", "")
                continue
            row = (short(one.value), interval(one), short(one.noise_floor))
            table.add_row(name, str(call.call + 1), *row)
    return table


def _outputs(sharing: Sharing) -> list[str]:
    """Statistics of its own for each call, against one set for all of them."""
    lines = ["off by: the ESM that exact statistics of all calls together have at this call"]
    separate = sharing.separate
    if sharing.accuracy is not None:
        change = sharing.accuracy
        between = span(change.low, change.high, points)
        lines.append(
            f"accuracy with statistics for each call: {percent(change.before)} to "
            f"{percent(change.after)}, {points(change.difference)} points ({between})"
        )
    if sharing.loss is not None:
        change = sharing.loss
        between = span(change.low, change.high, signed_loss)
        lines.append(f"loss: {loss(change.before)} to {loss(change.after)} ({between})")
    if separate is not None and separate.agreement is not None:
        lines.append(f"{percent(separate.agreement.value)} of the top-1 classes stay the same")
    if separate is not None and separate.relative_rms is not None:
        lines.append(f"the outputs move by {short(separate.relative_rms)} (relative RMS)")
    return lines
