"""A recalibration in the terminal: whole at 80 and at 60 columns, whatever was decided."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import get_args

import pytest
from made_up import DATA, change, recalibrated, verification
from rich.console import Console

from bnaudit.report.recalibration import LEVEL_STYLE, METHODS, print_recalibrated
from bnaudit.results import Decision, Estimate, Level, Method, Recalibrated, RecalibratedLayer

GAIN = Decision("gain", accept=True, sentence="Accepted: a significant gain.")
LEVELS: tuple[Level, ...] = get_args(Level)


def printed(result: Recalibrated, width: int = 80, *, all_layers: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    print_recalibrated(result, console, all_layers=all_layers)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the layer table by name."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["layer"] and i > 5)
    # The headline's rows start with "layer ESM".
    first = next(i for i in range(first, len(lines)) if re.match(r"layer .*after", lines[i]))
    table = {}
    for line in lines[first + 1 :]:
        if not line.strip():
            break
        name, *figures = line.split()
        table[name] = figures
    return table


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("width", [80, 60])
def test_no_line_is_longer_than_the_terminal_and_no_figure_is_cut(level: Level, width: int) -> None:
    sentence = f"The decision is {level}, for reasons that take more than one line of any terminal."
    for layers in (9, 60):
        for scale in (1.0, 1e-4, 3e5):
            out = printed(recalibrated(Decision(level, True, sentence), layers, scale), width)
            assert max(map(len, out.splitlines())) <= width
            assert "…" not in out
            assert sentence in words(out)


@pytest.mark.parametrize("width", [80, 60])
def test_long_names_fold(width: int) -> None:
    result = recalibrated(GAIN)
    layers = tuple(
        replace(layer, name=f"a_block_of_the_second_stage_with_a_long_name.{layer.name}")
        for layer in result.layers
    )
    out = printed(replace(result, layers=layers), width)
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out
    assert "2e-7" in out


@pytest.mark.parametrize("size", [1e3, 1e7])
def test_losses_of_a_model_that_diverged_fit(size: float) -> None:
    found = replace(verification(), loss=change(2.5 * size, size, size / 10), kl=size)
    out = printed(replace(recalibrated(GAIN), verification=found), 60)
    assert max(map(len, out.splitlines())) <= 60
    assert "…" not in out


def test_a_decision_has_a_colour_at_every_level() -> None:
    assert set(LEVEL_STYLE) == set(LEVELS)
    assert set(METHODS) == set(get_args(Method))
    for level in LEVELS:
        console = Console(
            file=io.StringIO(), width=80, force_terminal=True, color_system="standard"
        )
        print_recalibrated(recalibrated(Decision(level, True, "So it is.")), console)
        assert isinstance(console.file, io.StringIO)
        assert re.search(r"\x1b\[1[;\dm]*.*So it is\.", console.file.getvalue())


def test_before_and_after_stand_side_by_side_with_difference_and_interval() -> None:
    out = printed(recalibrated(GAIN))
    lines = {line[:24].strip(): line[24:].split() for line in out.splitlines()}
    assert lines["layer ESM, RMS"] == [".283", ".041", "-.242", "-.252", "to", "-.232"]
    assert lines["layer ESM, largest"][:3] == ["1.23", ".062", "-1.17"]
    assert lines["calibration residual"] == [".475", "2e-7", "-.475"]
    assert lines["accuracy, %"] == ["61.2", "75.4", "+14.2", "+12.1", "to", "+16.3"]
    assert lines["loss"] == ["1.234", "0.884", "-0.350", "-0.400", "to", "-0.300"]
    assert lines["agrees with deployed, %"] == ["71.2", "69.1", "to", "73.2"]
    assert "entropy" not in out


def test_the_headline_is_the_shift_on_the_verification_data() -> None:
    out = printed(recalibrated(GAIN))
    assert out.index("layer ESM, RMS") < out.index("calibration residual") < out.index("accuracy")


def test_without_labels_the_entropy_is_shown_and_no_accuracy() -> None:
    out = printed(replace(recalibrated(GAIN), verification=verification(labelled=False)))
    assert "accuracy" not in out
    assert "entropy, nats" in out
    assert "+0.221" in out


def test_an_interval_that_is_not_known_is_withheld() -> None:
    found = replace(verification(), accuracy=change(0.5, 0.6, None))
    lines = printed(replace(recalibrated(GAIN), verification=found)).splitlines()
    accuracy = next(line for line in lines if line.startswith("accuracy"))
    assert accuracy.split()[2:] == ["50.0", "60.0", "+10.0", "withheld"]


def test_without_verification_only_the_residual_is_shown() -> None:
    result = recalibrated(Decision("unverified", accept=True, sentence="Not verified."))
    layers = tuple(replace(layer, verify_before=None, verify_after=None) for layer in result.layers)
    out = printed(replace(result, verification=None, layers=layers))
    assert "calibration residual" in out
    assert "verif" not in out.replace("Not verified.", "")
    assert "95% interval" not in out
    assert "ESM, RMS" not in out


def test_outputs_that_are_no_scores_show_how_far_they_moved() -> None:
    found = replace(
        verification(labelled=False), entropy=None, agreement=None, kl=None, relative_rms=0.034
    )
    out = printed(replace(recalibrated(GAIN), verification=found))
    assert re.search(r"outputs, relative RMS +\.034", out)


def test_every_layer_has_own_inherited_before_after_and_floor() -> None:
    table = rows(printed(recalibrated(GAIN)))
    assert len(table) == 9
    assert table["layer1.0.bn1"] == [".070", ".011", ".071", "2e-7", ".071", ".021", ".012"]
    narrow = rows(printed(recalibrated(GAIN), 60))
    assert narrow["layer1.0.bn1"] == [".071", "2e-7", ".071", ".021", ".012"]


def test_a_long_model_shows_the_layers_that_were_worst_before() -> None:
    result = recalibrated(GAIN, 60)
    out = printed(result)
    before = {
        layer.name: layer.verify_before.value for layer in result.changed if layer.verify_before
    }
    worst = sorted(before, key=lambda name: before[name])[-12:]
    table = rows(out)
    assert set(table) == set(worst)
    assert list(table) == [layer.name for layer in result.changed if layer.name in worst]
    assert "12 layers of largest ESM on the verification data, of 60 (--all shows all)" in words(
        out
    )
    assert len(rows(printed(result, all_layers=True))) == 60


def test_figures_that_a_method_does_not_have_take_no_column() -> None:
    result = recalibrated(GAIN)
    layers = tuple(
        replace(layer, own_shift=None, own_output_shift=None, inherited_shift=None)
        for layer in result.layers
    )
    out = printed(replace(result, layers=layers, method="precise", asked="precise"))
    assert "own" not in out.split("layer ", 1)[1].split("floor")[0].split()
    assert len(rows(out)["bn"]) == 5


def test_layers_that_keep_their_statistics_are_listed_by_reason() -> None:
    result = recalibrated(GAIN)
    many = tuple(
        RecalibratedLayer(f"aux.{i}", "BatchNorm2d", 4, changed=False, reason="never called")
        for i in range(9)
    )
    out = words(printed(replace(result, layers=(*result.layers, *many))))
    assert "10 layers kept as they are: aux.bn1, aux.0, " in out
    assert "aux.4 and 4 more never called" in out
    assert "1 layer kept as it is: head.bn frozen (--include-frozen)" in out


def test_nothing_to_change_shows_the_reasons_and_no_table() -> None:
    decision = Decision("nothing-to-change", accept=False, sentence="Nothing to change.")
    result = recalibrated(decision, 0)
    result = replace(
        result, verification=None, residual=None, residual_before=None, noise_floor=None
    )
    out = printed(result)
    assert "calib." not in out
    assert "aux.bn1\n  never called" in out.replace(" \n", "\n")
    assert out.rstrip().endswith("Nothing to change.")


def test_the_noise_floor_says_whether_the_calibration_set_was_large_enough() -> None:
    enough = words(printed(recalibrated(GAIN)))
    assert "The calibration set was large enough: with its 1,000 samples" in enough
    assert "off by 0.012 in the worst layer (layer2.0.bn1); up to 0.05 counts as enough" in enough
    assert "Wu & Johnson 2021 find 1,000 to 10,000 samples enough" in enough
    small = replace(recalibrated(GAIN), noise_floor=0.09, samples_enough=3300)
    assert "set was small: with its 1,000 samples" in words(printed(small))
    assert "counts as enough; about 3,300 would do" in words(printed(small))
    tiny = replace(recalibrated(GAIN), noise_floor=None, data=replace(DATA, samples=5, groups=5))
    assert "5 samples are too few to say how exact" in words(printed(tiny))


def test_what_ran_is_told() -> None:
    result = replace(
        recalibrated(GAIN),
        asked="exact",
        method="sequential",
        prior=1000,
        batch_dependence=("layer x makes the result depend on the batches",),
        notes=("exact would hold 12 GB at once",),
    )
    out = words(printed(result))
    assert "sequential: the statistics of all samples as one batch" in out
    assert "(instead of exact, see the notes)" in out
    assert "count as 1,000 samples: weight 0.50 on the new ones" in out
    assert "1.2 GB of activations held at once (1.2 MB a sample), limit 8.0 GB on cpu" in out
    assert "warning layer x makes the result depend on the batches" in out
    assert "note exact would hold 12 GB at once" in out
    assert "3 samples left out: the calibration data hold the same" in out


def test_figures_that_are_not_finite_are_dashes() -> None:
    nan = float("nan")
    result = recalibrated(GAIN)
    first = replace(
        result.layers[0], calibration_after=nan, verify_after=Estimate(nan, nan), noise_floor=None
    )
    found = replace(verification(), loss=change(nan, nan, None))
    out = printed(replace(result, layers=(first, *result.layers[1:]), verification=found))
    assert rows(out)["bn"][3:] == ["–", ".020", "–", "–"]


def test_brackets_in_names_are_shown_as_they_are() -> None:
    result = recalibrated(Decision("gain", accept=True, sentence="Accepted [/b]."))
    layers = (replace(result.layers[0], name="a[b]"), *result.layers[1:])
    out = printed(replace(result, layers=layers, notes=("[red]x",)))
    assert "a[b]" in out
    assert "[red]x" in out
    assert "Accepted [/b]." in out
