"""A recalibration in the terminal: what ran, before and after side by side, and the decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnaudit.report.bound import bound
from bnaudit.report.loaded import loaded
from bnaudit.report.numbers import loss, points, short, signed, signed_loss, size, span
from bnaudit.report.tables import WIDE, shortened, some, table_of_layers
from bnaudit.results import (
    NOISE_ENOUGH,
    Change,
    DataInfo,
    Recalibrated,
    RecalibratedLayer,
    Verification,
)

METHODS = {
    "exact": "exact: the statistics of all samples as one batch, all layers in one pass",
    "sequential": "sequential: the statistics of all samples as one batch, a layer after the other",
    "precise": "precise: mini-batch statistics, pooled over the batches (Wu & Johnson 2021)",
    "ema": "ema: the framework's own moving average",
}

LEVEL_STYLE = {
    "gain": "bold green",
    "no-loss": "bold green",
    "loss": "bold red",
    "undecided": "bold yellow",
    "better-fit": "bold green",
    "worse-fit": "bold red",
    "not-finite": "bold red",
    "unverified": "bold yellow",
    "nothing-to-change": "bold",
}

Writer = Callable[[float | None], str]


def print_recalibrated(result: Recalibrated, console: Console, *, all_layers: bool = False) -> None:
    """Everything a reader needs to judge the new statistics, in the order of the questions."""
    console.print(about(result))
    rows = headline(result)
    if rows:
        on = ", on the verification data" if result.verification is not None else ""
        console.print(Text(f"\nBefore and after{on}", style="bold"))
        console.print(before_and_after(rows))
    if result.changed:
        console.print()
        console.print(layer_table(result.changed, console.width, all_layers=all_layers))
        console.print(Padding(Text(legend(result), style="dim"), (1, 0, 0, 0)))
    for line, reason in kept(result):
        console.print(Text(f"\n{line}"))
        console.print(Padding(Text(reason), (0, 0, 0, 2)))
    noise = noise_sentence(result)
    if noise is not None:
        console.print(Text(f"\n{noise}"))
    console.print(decision(result))


def about(result: Recalibrated) -> RenderableType:
    """What was loaded, what ran, and what makes the result depend on more than the data."""
    data = {"calibration": result.data}
    if result.verification is not None:
        data["verification"] = _with_overlap(result.verification)
    grid = loaded(result.model, data, f"{result.device}, {result.dtype}")
    asked = "" if result.asked == result.method else f" (instead of {result.asked}, see the notes)"
    grid.add_row("method", Text(METHODS[result.method] + asked))
    if result.prior:
        weight = result.data.samples / (result.prior + result.data.samples)
        grid.add_row(
            "prior",
            Text(
                f"the checkpoint's statistics count as {result.prior:,g} samples: weight "
                f"{weight:.2f} on the new ones"
            ),
        )
    memory = result.memory
    if memory is not None:
        grid.add_row(
            "memory",
            Text(
                f"{size(memory.needed)} of activations held at once ({size(memory.per_sample)} a "
                f"sample), limit {size(memory.limit)} on {memory.device}"
            ),
        )
    if result.run_time is not None:
        grid.add_row("time", Text(bound(result.run_time, result.device, result.dtype)))
    for sentence in result.batch_dependence:
        grid.add_row("warning", Text(sentence, style="yellow"))
    for note in result.notes:
        grid.add_row("note", Text(note))
    return grid


def _with_overlap(verification: Verification) -> DataInfo:
    """The verification data, with a note on what was left out of them."""
    info = verification.data
    if not verification.overlap:
        return info
    left_out = _count(verification.overlap, "sample")
    note = f"{left_out} left out: the calibration data hold the same"
    return replace(info, notes=(*info.notes, note))


@dataclass(frozen=True)
class Row:
    """A row of the headline table, its figures as they are printed."""

    name: str
    before: str
    after: str
    difference: str = ""
    interval: str = ""


def headline(result: Recalibrated) -> list[Row]:
    """The rows of the headline table that there are figures for."""
    rows: list[Row] = []
    verification = result.verification
    if verification is not None:
        rows += [
            _changed("layer ESM, RMS", verification.layer_shift, short, signed),
            _changed("layer ESM, largest", verification.largest_shift, short, signed),
        ]
    if result.residual is not None:
        before = result.residual_before
        change = None if before is None else result.residual - before
        rows.append(
            Row(
                "calibration residual",
                short(before),
                short(result.residual),
                "" if change is None else signed(change),
            )
        )
    if verification is not None:
        rows += _outputs(verification)
    return [row for row in rows if row.after]


def _outputs(verification: Verification) -> list[Row]:
    rows = [
        _changed("accuracy, %", verification.accuracy, _hundred, points),
        _changed("loss", verification.loss, loss, signed_loss),
    ]
    if verification.accuracy is None:  # with labels the entropy adds nothing to the loss
        rows.append(_changed("entropy, nats", verification.entropy, loss, signed_loss))
    agreement = verification.agreement
    if agreement is not None:
        interval = span(agreement.low, agreement.high, _hundred)
        rows.append(Row("agrees with deployed, %", "", _hundred(agreement.value), "", interval))
    if verification.kl is not None:
        rows.append(Row("KL from deployed, nats", "", short(verification.kl)))
    if verification.relative_rms is not None:
        rows.append(Row("outputs, relative RMS", "", short(verification.relative_rms)))
    return rows


def _changed(name: str, change: Change | None, write: Writer, write_difference: Writer) -> Row:
    if change is None:
        return Row(name, "", "")
    return Row(
        name,
        write(change.before),
        write(change.after),
        write_difference(change.difference),
        span(change.low, change.high, write_difference),
    )


def _hundred(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}"


def before_and_after(rows: list[Row]) -> RenderableType:
    """The headline table: a column that no row fills is left out."""
    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
    table.add_column("", overflow="fold", min_width=12)
    columns = [
        ("before", [row.before for row in rows]),
        ("after", [row.after for row in rows]),
        ("difference", [row.difference for row in rows]),
        ("95% interval", [row.interval for row in rows]),
    ]
    columns = [column for column in columns if any(column[1])]
    for header, _ in columns:
        table.add_column(header, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        style = "bold" if number == 0 or row.name.startswith("accuracy") else None
        table.add_row(row.name, *(cells[number] for _, cells in columns), style=style)
    return table


COLUMNS: dict[str, Callable[[RecalibratedLayer], float | None]] = {
    "own": lambda layer: layer.own_shift.value if layer.own_shift else None,
    "inher.": lambda layer: layer.inherited_shift,
    "calib.\nbefore": lambda layer: layer.calibration_before,
    "calib.\nafter": lambda layer: layer.calibration_after,
    "verify\nbefore": lambda layer: layer.verify_before.value if layer.verify_before else None,
    "verify\nafter": lambda layer: layer.verify_after.value if layer.verify_after else None,
    "floor": lambda layer: layer.noise_floor,
}
DETAILS = ("own", "inher.")
"""Left out in a narrow terminal; they are in the JSON document."""


def layer_table(layers: list[RecalibratedLayer], width: int, *, all_layers: bool) -> RenderableType:
    """The recalibrated layers in call order; a long table is shortened to the worst."""
    verified = any(layer.verify_before is not None for layer in layers)
    where = "verification" if verified else "calibration"
    shown, title = shortened(layers, _worst, f"ESM on the {where} data", all_layers=all_layers)
    headers = [
        header
        for header, figure in COLUMNS.items()
        if (width >= WIDE or header not in DETAILS) and any(figure(i) is not None for i in layers)
    ]
    table = table_of_layers(headers, title)
    for layer in shown:
        table.add_row(Text(layer.name), *(short(COLUMNS[header](layer)) for header in headers))
    return table


def _worst(layer: RecalibratedLayer) -> float:
    """The larger of before and after: what got worse is not to be hidden."""
    figures = [layer.calibration_before, layer.calibration_after]
    if layer.verify_before is not None:
        sides = (layer.verify_before, layer.verify_after)
        figures = [side.value for side in sides if side is not None]
    return max((figure for figure in figures if figure is not None), default=0.0)


def legend(result: Recalibrated) -> str:
    """What the columns are."""
    parts = ["ESM of a layer, in standard deviations: calib. (as computed; after: the residual)"]
    if result.verification is not None:
        parts[0] += " and verify (debiased)"
    if any(layer.own_shift is not None for layer in result.layers):
        parts.append("own, inher.: what was wrong before, own and inherited from upstream")
    if any(layer.noise_floor is not None for layer in result.layers):
        parts.append("floor: what the new statistics are off by for the size of the set alone")
    return "; ".join(parts) + "."


def kept(result: Recalibrated) -> list[tuple[str, str]]:
    """The layers that keep their statistics, and why, by reason."""
    groups: dict[str, list[str]] = {}
    for layer in result.layers:
        if not layer.changed:
            groups.setdefault(layer.reason or "not selected", []).append(layer.name)
    return [
        (f"{_count(len(names), 'layer')} kept as {_are(names)}: {some(names)}", reason)
        for reason, names in groups.items()
    ]


def _are(names: list[str]) -> str:
    return "it is" if len(names) == 1 else "they are"


def noise_sentence(result: Recalibrated) -> str | None:
    """Whether the calibration set was large enough, from the noise floor of the new statistics.

    That of mini-batch methods is not told by the number of samples alone.
    """
    if not result.changed or result.method not in ("exact", "sequential"):
        return None
    samples = f"{result.data.samples:,} samples"
    if result.noise_floor is None:
        if 0 < result.data.groups < 8:
            return f"{samples} are too few to say how exact the new statistics are."
        return None
    where = f" ({result.noise_floor_layer})" if result.noise_floor_layer else ""
    small = result.noise_floor > NOISE_ENOUGH
    size_said = "small" if small else "large enough"
    enough = (
        f"; about {result.samples_enough:,} would do" if small and result.samples_enough else ""
    )
    return (
        f"The calibration set was {size_said}: with its {samples} chance puts the new statistics "
        f"off by {result.noise_floor:.2g} in the worst layer{where}; up to {NOISE_ENOUGH:g} counts "
        f"as enough{enough} (Wu & Johnson 2021 find "
        "1,000 to 10,000 samples enough)."
    )


def decision(result: Recalibrated) -> Text:
    """The decision in words."""
    return Text(f"\n{result.decision.sentence}", style=LEVEL_STYLE[result.decision.level])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
