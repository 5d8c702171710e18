"""What is printed and drawn comes from the result alone, and fits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sweep_inputs import digits, pixels, sample_model
from torch.utils.data import TensorDataset

from bnaudit.errors import InputError
from bnaudit.report.sweep import print_sweep
from bnaudit.report.sweep_files import write_sweep
from bnaudit.report.sweep_plots import figures
from bnaudit.results.sweep import Sweep
from bnaudit.verbs.sweep_momentum import sweep_momentum
from bnaudit.verbs.sweep_prior import sweep_prior


@cache
def swept() -> Sweep:
    """Read back from its document: nothing else is at hand."""
    sweep = sweep_momentum(
        sample_model("lagging_ema"),
        digits("train", 256),
        verify=digits("test", 100),
        values=[0.001, 0.1, 0.3, 1],
    )
    return Sweep.from_json(sweep.to_json())


def printed(sweep: Sweep, width: int) -> str:
    console = Console(file=StringIO(), width=width, highlight=False)
    print_sweep(sweep, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_conclusion_stands_above_the_table_and_the_momentum_in_force_is_marked() -> None:
    said = printed(swept(), 80)
    assert said.index("The moving average does as well") < said.index("held-out data, 100 samples")
    assert "0.1*" in said
    rows = [line.split() for line in said.splitlines()]
    values = [row[0] for row in rows if row and row[0].rstrip("*") in ("0.001", "0.1", "1")]
    assert values == ["0.001", "0.1*", "1"]
    assert any(row[:1] == ["estimates"] for row in rows)
    assert any(row[:1] == ["exact"] for row in rows)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_figure_is_cut_in_a_narrow_terminal(width: int) -> None:
    said = printed(swept(), width)
    rows = [line for line in said.splitlines() if line.split()[1:2] and "%" in line.split()[1]]
    table = [row for row in rows if row[0].isdigit() or row.startswith(("estimates", "exact"))]
    assert len(table) == len(swept().points) + 2
    assert all("…" not in row.replace("…+", "").replace("…-", "") for row in table)
    assert all(len(line) <= width for line in said.splitlines() if "bnaudit" not in line)


def test_without_labels_the_table_has_no_accuracy() -> None:
    data = TensorDataset(pixels("test", 60)[0])
    said = printed(sweep_prior(sample_model("healthy"), data, values=[0, 16]), 80)
    assert "top-1" not in said.split("prior")[-1].splitlines()[0]
    assert "agree" in said
    assert "No conclusion: see the table." in said


def test_the_plot_has_a_panel_for_each_figure_with_the_values_of_the_document() -> None:
    drawn = dict(figures(swept()))
    accuracy, loss, shift = drawn[""].axes
    for axes, read in (
        (accuracy, lambda point: point.scores.accuracy),
        (loss, lambda point: point.scores.loss),
        (shift, lambda point: point.shift),
    ):
        line = next(line for line in axes.lines if line.get_label() == "held-out data")
        np.testing.assert_allclose(line.get_xdata(), swept().values)
        np.testing.assert_allclose(line.get_ydata(), [read(p).value for p in swept().points])
    image = drawn["_layers"].axes[0].images[0].get_array()
    assert image is not None
    assert image.shape == (len(swept().layers), len(swept().values))


def test_a_reference_far_away_is_named_at_the_edge_and_leaves_the_line_readable() -> None:
    best = replace(swept(), points=tuple(p for p in swept().points if p.value in (0.1, 0.3)))
    accuracy = dict(figures(best))[""].axes[0]
    (text,) = [text.get_text() for text in accuracy.texts]
    estimates = best.data[0].estimates.accuracy
    assert estimates is not None
    assert text == f"estimates: {estimates.value:.1%} ↓"
    assert accuracy.get_ylim()[0] > estimates.value


def test_names_of_layers_command_neither_a_terminal_nor_a_plot(tmp_path: Path) -> None:
    names = ("\x1b[2J", "$\\frac$", *swept().layers[2:])
    odd = replace(swept(), layers=names)
    assert write_sweep(odd, tmp_path)
    assert "\x1b[2J" not in (tmp_path / "sweep_momentum_layers.svg").read_text()


def test_a_folder_that_is_a_file_is_told() -> None:
    with pytest.raises(InputError, match="is a file; give a folder"):
        write_sweep(swept(), Path(__file__))
