"""A comparison in the terminal, as files, and drawn."""

from __future__ import annotations

import csv
import io
import itertools
import re
from dataclasses import replace
from pathlib import Path

import gates
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from rich.console import Console

from bnaudit.errors import InputError
from bnaudit.report.changes import print_changes
from bnaudit.report.changes_files import write_changes
from bnaudit.report.changes_plot import KINDS, figure
from bnaudit.report.changes_words import summary
from bnaudit.results import Changes, NetworkChange


def printed(changes: Changes, width: int = 80, *, all_layers: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    print_changes(changes, console, all_layers=all_layers)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def real() -> Changes:
    changes = gates.measured()[1].changes
    assert changes is not None
    return changes


def with_network(**figures: tuple[float, float]) -> Changes:
    network = [
        NetworkChange(name, gates.difference(*values))  # type: ignore[arg-type]
        for name, values in figures.items()
    ]
    return replace(gates.changes(grown=()), network=tuple(network))


def test_the_first_sentence_says_what_moved_beyond_noise() -> None:
    said = summary(gates.changes())
    assert said.startswith("Accuracy fell by 2.8 points (from 91.2 to 88.4%); loss rose by 0.050")
    assert "output shift grew in 1 of 9 layers, layer1.2.bn1 (.050 to .350)" in said
    assert said.endswith("1 finding is new (BN101).")
    assert words(printed(gates.changes())).startswith(words(said))


def test_what_got_better_is_said_too() -> None:
    assert summary(with_network(accuracy=(0.5, 0.75))).startswith(
        "Accuracy rose by 25.0 points (from 50.0 to 75.0%)."
    )
    changes = gates.changes(grown=())
    layer = replace(changes.layers[3], output_shift=gates.difference(0.4, 0.1))
    better = replace(
        changes, layers=(*changes.layers[:3], layer), network=(), lost=(gates.finding(),)
    )
    assert summary(better) == (
        "Output shift fell in 1 of 4 layers, layer1.1.bn1 (.400 to .100). "
        "1 finding is gone (BN101)."
    )


def test_nothing_is_said_to_change_where_all_of_it_is_noise() -> None:
    said = summary(gates.changes(grown=()))
    assert said == "Nothing changed beyond noise: 9 layers and 4 figures of the network compared."


def test_without_intervals_nothing_is_claimed_either_way() -> None:
    said = summary(gates.changes(half=None))
    assert said.startswith("Whether anything changed cannot be told: 9 layers")
    assert "withheld" in printed(gates.changes(half=None))
    assert "worse" not in printed(gates.changes(half=None))


def test_two_networks_without_a_figure_in_common_have_nothing_to_compare() -> None:
    empty = replace(gates.changes(), layers=(), network=(), added=("a",), removed=("b",))
    assert "Nothing can be compared" in printed(empty)
    assert "1 layer added: a" in printed(empty)
    assert "1 layer removed: b" in printed(empty)


def rows(out: str) -> dict[str, list[str]]:
    """The rows of both tables, by the first word."""
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if re.match("network .*before", line))
    return {line.split()[0]: line.split()[1:] for line in lines[first:] if " to " in line}


def test_each_layer_has_its_figures_its_interval_and_its_mark() -> None:
    found = rows(printed(gates.changes()))
    assert found["layer1.2.bn1"] == [
        *(".050", ".350", "+.300", "+.290", "to", "+.310", "▲", "worse")
    ]
    assert found["layer1.2.bn2"] == [".060", ".062", "+.002", "-.008", "to", "+.012"]
    assert found["accuracy,"] == ["%", "91.2", "88.4", "-2.8", "-3.8", "to", "-1.8", "▲", "worse"]


def test_a_mark_says_which_way_is_worse() -> None:
    for figure_, worse in (("accuracy", (0.9, 0.8)), ("loss", (0.3, 0.5))):
        assert "▲ worse" in printed(with_network(**{figure_: worse}))
        assert "▽ better" in printed(with_network(**{figure_: worse[::-1]}))


def test_both_sides_are_named_and_whether_they_saw_the_same_samples() -> None:
    said = words(printed(gates.changes()))
    assert "before main.json main.pt (sha256 abababababab), nets.py:resnet, npz:val.npz" in said
    assert "after ckpt.pt" in said
    assert "the same samples on both sides" in said
    other = replace(gates.changes(), paired=False, notes=("Other seeds.",))
    assert "other samples on each side" in words(printed(other))
    assert "note Other seeds." in words(printed(other))


def test_a_long_table_is_shortened_to_what_moved() -> None:
    changes = gates.changes(60, grown=(7, 41))
    moved = [changes.layers[i].name for i in (7, 41)]
    short = printed(changes)
    assert "The 12 layers of largest change, of 60" in words(short)
    names = {layer.name for layer in changes.layers}
    assert {name for name, cells in rows(short).items() if "worse" in cells} >= set(moved)
    assert len(names & set(rows(short))) == 12
    assert set(rows(printed(changes, all_layers=True))) >= names


def test_a_layer_without_figures_says_why() -> None:
    changes = gates.changes()
    first = replace(
        changes.layers[0], output_shift=None, total_shift=None, note="never called before"
    )
    said = printed(replace(changes, layers=(first, *changes.layers[1:])))
    assert "bn: never called before" in said


def test_renamed_layers_and_findings_are_listed() -> None:
    changes = gates.changes()
    first = replace(changes.layers[0], before_name="stem.bn")
    said = printed(
        replace(changes, layers=(first, *changes.layers[1:]), lost=(gates.finding("BN201"),))
    )
    assert "1 layer renamed: stem.bn → bn" in said
    assert "Findings gained: 1\nBN101 estimation-shift (layer1.2.bn1) (error)" in said
    assert "Findings lost: 1\nBN201" in said


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("layers", [9, 60])
def test_no_line_is_longer_than_the_terminal_and_no_figure_is_cut(width: int, layers: int) -> None:
    for changes in (gates.changes(layers), gates.changes(layers, half=None), real()):
        for all_layers in (False, True):
            out = printed(changes, width, all_layers=all_layers)
            assert max(map(len, out.splitlines())) <= width
            assert "…" not in out


@pytest.mark.parametrize("size", [1e4, 3.3e5])
def test_figures_of_a_model_that_diverged_fit(size: float) -> None:
    changes = with_network(loss=(0.3, size), total_esm=(2.5 * size, size))
    layer = replace(changes.layers[5], output_shift=gates.difference(0.1, size, size / 3))
    out = printed(replace(changes, layers=(layer,)), 60)
    assert max(map(len, out.splitlines())) <= 60
    assert "…" not in out
    assert len(re.findall(r"(▲ worse|▽ better) *$", out, re.M)) == 3


def test_names_from_files_are_text_everywhere(tmp_path: Path) -> None:
    changes = gates.nasty().changes
    assert changes is not None
    out = printed(changes, 500, all_layers=True)
    assert all(char == "\n" or char.isprintable() for char in out)
    assert "[bold]" in out
    written = write_changes(changes, tmp_path)
    assert {path.name for path in written} == {
        *("changes.json", "changes.csv", "change_by_depth.png", "change_by_depth.svg")
    }
    assert Changes.from_json((tmp_path / "changes.json").read_text()).layers


def test_the_document_gives_the_same_comparison(tmp_path: Path) -> None:
    write_changes(real(), tmp_path)
    assert Changes.from_json((tmp_path / "changes.json").read_text()) == real()


def test_the_table_has_every_figure_in_full(tmp_path: Path) -> None:
    changes = real()
    write_changes(changes, tmp_path)
    with (tmp_path / "changes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    network = {row["figure"]: row for row in rows if not row["layer"]}
    assert set(network) == {item.figure for item in changes.network}
    for item in changes.network:
        assert float(network[item.figure]["difference"]) == item.change.difference
    shifts = {row["layer"]: row for row in rows if row["figure"] == "output_shift"}
    assert list(shifts) == [layer.name for layer in changes.layers]
    for layer in changes.layers:
        change = layer.output_shift
        assert change is not None
        assert float(shifts[layer.name]["before"]) == change.before
        assert float(shifts[layer.name]["surely_low"]) == change.surely_low
        assert shifts[layer.name]["significant"] == str(change.significant)
    assert {row["significant"] for row in rows if row["figure"] == "total_shift"} <= {""}


def test_a_plot_of_an_earlier_comparison_does_not_stay(tmp_path: Path) -> None:
    write_changes(gates.changes(), tmp_path)
    written = write_changes(replace(gates.changes(), layers=()), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changes.csv", "changes.json"]
    assert sorted(written) == sorted(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"--output .*file"):
        write_changes(gates.changes(), tmp_path / "file")


def test_the_plot_shows_each_change_with_its_interval_and_kind() -> None:
    changes = gates.changes(12, grown=(5, 7))
    layer = replace(changes.layers[2], output_shift=gates.difference(0.4, 0.1))
    layers = [*changes.layers]
    layers[2] = layer
    drawn = figure(replace(changes, layers=tuple(layers)))
    assert drawn is not None
    _, axes = drawn.axes
    bars = {bar.get_label(): bar for bar in axes.containers}
    assert set(bars) == {label for _, _, _, label in KINDS}
    for kind, colour, shape, label in KINDS:
        points, _, (spans,) = bars[label].lines
        assert points.get_marker() == shape
        assert to_hex(points.get_color()).upper() == colour.upper()
        assert list(points.get_xdata()) == (
            {"worse": [5, 7], "better": [2]}.get(kind) or [0, 1, 3, 4, 6, 8, 9, 10, 11]
        )
        for x, segment in zip(points.get_xdata(), spans.get_segments(), strict=True):
            change = layers[x].output_shift
            assert change is not None
            np.testing.assert_allclose(segment[:, 1], [change.low, change.high])


def test_kinds_differ_by_shape_and_not_by_colour_alone() -> None:
    assert len({shape for _, _, shape, _ in KINDS}) == len({kind for kind, *_ in KINDS}) == 3


@pytest.mark.parametrize("layers", [1, 9, 160])
def test_the_plot_is_readable_at_any_depth(layers: int, tmp_path: Path) -> None:
    changes = gates.changes(layers, grown=tuple(i for i in (5, 40, 150) if i < layers))
    drawn = figure(changes)
    assert drawn is not None
    drawn.canvas.draw()
    (_, axes) = drawn.axes
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(a.x1 <= b.x0 + 1 for a, b in itertools.pairwise(boxes))
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert {layer.name for layer in changes.layers if layer.output_shift.significant} <= set(names)  # type: ignore[union-attr]
    write_changes(changes, tmp_path)
    with Image.open(tmp_path / "change_by_depth.png") as image:
        assert 800 <= image.width <= 2800


def test_a_layer_that_dwarfs_the_others_does_not_flatten_them() -> None:
    changes = gates.changes()
    layer = replace(changes.layers[0], output_shift=gates.difference(0.1, 84.0))
    drawn = figure(replace(changes, layers=(layer, *changes.layers[1:])))
    plain = figure(changes)
    assert drawn is not None
    assert plain is not None
    assert [axes.get_yscale() for axes in drawn.axes] == ["symlog"] * 2
    assert [axes.get_yscale() for axes in plain.axes] == ["linear"] * 2


def test_the_same_comparison_gives_the_same_files(tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 20}):
        first = write_changes(gates.changes(), tmp_path / "a")
    second = write_changes(gates.changes(), tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_nothing_is_drawn_without_a_layer_in_common() -> None:
    assert figure(replace(gates.changes(), layers=())) is None
