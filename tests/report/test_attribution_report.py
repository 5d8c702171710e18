"""Where the shift of an Audit comes from: table, sentences and plot."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import audit, estimate
from rich.console import Console

from bnaudit.findings.shifted import SHIFT_THRESHOLD
from bnaudit.report.attribution import accumulation, few_layers, ratio
from bnaudit.report.files import write_results
from bnaudit.report.plots import THRESHOLD
from bnaudit.report.terminal import print_audit
from bnaudit.results import Attribution, Audit

PLOT = "own_and_inherited_by_depth"


def printed(result: Audit, width: int = 80, *, all_layers: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    print_audit(result, console, all_layers=all_layers)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def table(text: str) -> list[list[str]]:
    lines = text.partition("Where the shift comes from")[2].splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["layer"])
    return [line.split() for line in lines[first + 1 :]][
        : next(i for i, line in enumerate(lines[first + 1 :]) if not line.strip())
    ]


def found(**figures: object) -> Attribution:
    return replace(Attribution(samples=512), **figures)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("layers", [2, 9, 60])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e6])
def test_no_line_is_longer_than_the_terminal_and_no_figure_is_cut(
    width: int, layers: int, scale: float
) -> None:
    out = printed(audit(layers, scale), width)
    attributed = out.partition("Where the shift comes from")[2]
    assert attributed
    assert "…" not in out
    assert max(map(len, attributed.splitlines())) <= width


def test_a_layer_has_total_own_interval_inherited_ratio_and_own_output_shift() -> None:
    rows = table(printed(audit(9)))
    assert len(rows) == 9
    assert rows[5] == ["layer1.2.bn1", ".367", ".350", ".322–.378", ".111", "1.04", ".315"]
    assert table(printed(audit(9), 60))[5] == rows[5][:-1]


def test_a_ratio_needs_an_own_shift_that_is_above_zero_for_certain() -> None:
    layer = audit(9).layers[1]
    assert layer.own_shift is not None
    assert layer.own_shift.low == 0
    assert ratio(layer) == "–"
    assert ratio(replace(layer, own_shift=estimate(0.05, withheld=True))) == "–"
    assert ratio(replace(layer, own_shift=None)) == "–"
    assert ratio(replace(layer, own_shift=estimate(0.05), attributed_shift=0.101)) == "2.00"


def test_a_long_model_shows_the_layers_of_largest_own_output_shift() -> None:
    result = audit(60)
    out = printed(result)
    title = "The 12 layers of largest own output shift, of 60 (--all shows all)"
    assert title in " ".join(out.split())
    largest = {
        layer.name
        for layer in sorted(result.layers, key=lambda i: i.own_output_shift.value)[-12:]  # type: ignore[union-attr]
    }
    assert {row[0] for row in table(out)} == largest
    assert len(table(printed(result, all_layers=True))) == 60


def test_an_audit_without_attribution_says_nothing_of_it() -> None:
    assert "comes from" not in printed(replace(audit(9), attribution=None))


@pytest.mark.parametrize(
    ("spearman", "words"),
    [
        (0.83, "grows with depth (rank correlation +0.83)"),
        (-0.7, "falls with depth (rank correlation -0.70)"),
        (0.2, "no clear trend over depth (rank correlation +0.20)"),
    ],
)
def test_accumulation_is_told_by_rank_correlation_and_thirds(spearman: float, words: str) -> None:
    said = accumulation(found(spearman=spearman, first_third=0.052, last_third=0.31))
    assert said is not None
    assert words in said
    assert "RMS .052 over the first third of the layers, .310 over the last." in said


def test_without_a_correlation_nothing_is_said_of_a_trend() -> None:
    assert accumulation(found()) is None
    said = accumulation(found(first_third=0.05, last_third=0.3))
    assert said is not None
    assert "depth" not in said


def test_few_layers_are_counted_and_named_with_what_they_do() -> None:
    names = ("layer3.1.bn2", "bn")
    said = few_layers(
        found(
            layers_that_matter=names,
            search_samples=256,
            effect="kl",
            full_effect=0.0512,
            left_effect=0.0043,
        ),
        20,
    )
    assert said is not None
    assert said.startswith("Few layers matter: recalibrating 2 of 20 layers alone")
    assert "(layer3.1.bn2, bn)" in said
    assert "(256 samples)" in said
    assert "mean KL of .051 nats" in said
    assert ".004 away" in said


def test_more_layers_are_not_called_few() -> None:
    names = tuple(f"bn{i}" for i in range(6))
    said = few_layers(found(layers_that_matter=names), 9)
    assert said is not None
    assert said.startswith("Recalibrating 6 of 9 layers alone")


def test_all_layers_are_not_called_few() -> None:
    said = few_layers(found(layers_that_matter=("a", "b")), 2)
    assert said is not None
    assert said.startswith("No few layers matter")
    assert "all 2" in said


def test_no_layer_matters_where_the_correction_does_nothing() -> None:
    said = few_layers(found(layers_that_matter=()), 9)
    assert said is not None
    assert "hardly changes the outputs" in said


def test_a_search_that_was_not_made_gives_its_reason() -> None:
    assert few_layers(found(), 9) is None
    said = few_layers(found(search_note="the outputs cannot be compared"), 9)
    assert said is not None
    assert said.endswith("the outputs cannot be compared")


def test_the_plot_is_written_with_the_others_in_both_formats(tmp_path: Path) -> None:
    for layers in (9, 60):
        written = {path.name for path in write_results(audit(layers), tmp_path)}
        assert {f"{PLOT}.png", f"{PLOT}.svg"} <= written
        svg = ElementTree.parse(tmp_path / f"{PLOT}.svg").getroot()
        assert len(list(svg.iter("{http://www.w3.org/2000/svg}path"))) > 3 * layers
    result = audit(9)
    plain = replace(
        result,
        attribution=None,
        layers=tuple(replace(layer, attributed_shift=None) for layer in result.layers),
    )
    write_results(plain, tmp_path)
    assert not list(tmp_path.glob(f"{PLOT}.*"))


def test_the_threshold_in_the_plot_is_that_of_the_verdict() -> None:
    assert THRESHOLD == SHIFT_THRESHOLD
