"""What was loaded: model, checkpoint, data, device, as the first lines of every report."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from bnaudit.results import DataInfo, ModelInfo


def loaded(model: ModelInfo, data: Mapping[str, DataInfo], device: str) -> Table:
    """A grid of a bold word and what it was, each of `data` by its word; more rows may follow."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    kinds = ", ".join(f"{count} {kind}" for kind, count in model.bn_layers.items())
    total = sum(model.bn_layers.values())
    grid.add_row("model", Text(f"{model.source}, {model.parameters:,} parameters"))
    grid.add_row("BN layers", Text(f"{total} ({kinds})" if total else "none"))
    if model.checkpoint:
        sha = f" (sha256 {model.checkpoint_sha256[:12]})" if model.checkpoint_sha256 else ""
        grid.add_row("checkpoint", Text(f"{model.checkpoint}{sha}"))
    for note in model.checkpoint_notes:
        grid.add_row("", Text(note, style="dim"))
    transform = None
    for word, info in data.items():
        _add_data(grid, word, info, same_transform=info.transform == transform)
        transform = info.transform
    grid.add_row("device", Text(device))
    return grid


def _add_data(grid: Table, word: str, info: DataInfo, *, same_transform: bool) -> None:
    of = f" of {info.available:,}" if info.available else ""
    batches = f" in batches of {info.batch_size}" if info.batch_size else ""
    seed = f", seed {info.seed}" if info.seed is not None else ""
    groups = f", {info.groups} groups" if info.groups else ""
    grid.add_row(word, Text(f"{info.source}: {info.samples:,}{of} samples{batches}{seed}{groups}"))
    if info.transform and not same_transform:
        grid.add_row("transform", Text(info.transform))
    for note in (*info.notes, *_skipped(info.skipped)):
        grid.add_row("", Text(note, style="dim"))


def _skipped(skipped: tuple[str, ...]) -> list[str]:
    if not skipped:
        return []
    shown = [f"left out, unreadable: {line}" for line in skipped[:5]]
    more = len(skipped) - len(shown)
    return [f"{len(skipped)} samples left out (--skip-bad)", *shown] + (
        [f"and {more} more, all in the JSON document"] if more else []
    )
