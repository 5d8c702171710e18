"""What changed from one Audit to another: figures against oracles, and what is only noise."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from shifted_chains import audit_of, between, chain, figure, figures, gaussian, measured, shift
from torch import nn

from bnaudit.results import Audit, Changes, LayerAudit, Marks

NETWORK = ("total_esm", "accuracy", "loss", "disagreement")


def classifier(shift: float = 0.0) -> nn.Module:
    """BN before and after the scores, whose statistics are off by `shift`: (N, 6) to (N, 6)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 6))
    for index in ("0", "2"):
        norm = model.get_submodule(index)
        norm.get_buffer("running_mean").add_(
            shift * torch.randn(norm.get_buffer("running_mean").shape)
        )
    return model.eval()


def scored(model: nn.Module, samples: int = 400, seed: int = 0) -> Audit:
    """On samples whose classes the untouched network tells three times of four."""
    x = gaussian(samples, seed)
    with torch.no_grad():
        y = classifier()(x).argmax(1)
    wrong = torch.rand(samples, generator=torch.Generator().manual_seed(seed)) < 0.25
    return audit_of(model, x, torch.where(wrong, (y + 1) % 6, y), seed=seed)


def squared(layer: LayerAudit) -> float:
    """D² − b of the output shift by the definition: b = (k − 1)(mean left out − D²)."""
    assert layer.output_shift is not None
    left_out = np.array(layer.left_out_squared_output_shift)
    plain = layer.output_shift.plain**2
    return float(plain - (len(left_out) - 1) * (left_out.mean() - plain))


def test_an_audit_does_not_differ_from_itself() -> None:
    audit = scored(classifier(0.5))
    changes = between(audit, Audit.from_json(audit.to_json()))
    assert changes.paired
    assert [network.figure for network in changes.network] == list(NETWORK)
    for found in figures(changes):
        assert found.difference == 0.0
        assert not found.significant
        assert found.low is not None
        assert found.high is not None
        assert found.low <= 0 <= found.high
    assert changes.gained == changes.lost == changes.notes == changes.added == changes.removed == ()


def test_each_layer_differs_by_its_debiased_output_shifts() -> None:
    before, after = measured(0.3, 0.05), measured(0.1, 0.4, seed=1)
    changes = between(before, after)
    assert not changes.paired
    for name in ("0", "1"):
        old, new = (math.sqrt(max(0, squared(a.layer(name)))) for a in (before, after))
        found = shift(changes, name)
        assert found.before == pytest.approx(old)
        assert found.after == pytest.approx(new)
        assert found.difference == pytest.approx(new - old)


def test_the_figure_of_the_network_is_the_root_mean_square_of_its_layers() -> None:
    before, after = measured(0.3, 0.05, 0.2), measured(0.1, 0.4, 0.0)
    found = figure(between(before, after), "total_esm")
    old, new = (math.sqrt(np.mean([squared(x) for x in a.audited])) for a in (before, after))
    assert found.before == pytest.approx(old)
    assert found.after == pytest.approx(new)


def test_independent_limits_are_those_of_each_side_by_the_textbook() -> None:
    before, after = measured(0.3, 0.5), measured(0.4, 0.2, seed=1)
    changes = between(before, after)
    compared = len(figures(changes))
    for name in ("0", "1"):
        for level, low in ((0.95, "low"), (1 - 0.01 / compared, "surely_low")):
            sides = []
            for audit in (before, after):
                known = audit.layer(name).output_shift
                assert known is not None
                assert known.standard_error is not None
                t = scipy_stats.t.ppf(0.5 + level / 2, known.groups - 1)
                square = squared(audit.layer(name))
                limits = [math.sqrt(max(0, square + s * t * known.standard_error)) for s in (-1, 1)]
                sides.append((math.sqrt(square), *limits))
            (b, _, high), (a, below, _) = sides
            expected = a - b - math.hypot(a - below, high - b)
            assert getattr(shift(changes, name), low) == pytest.approx(expected, abs=1e-9)


def test_the_same_samples_make_the_limits_narrower() -> None:
    before = measured(0.3, 0.5)
    paired, apart = (
        between(before, measured(0.33, 0.5)),
        between(before, measured(0.33, 0.5, seed=1)),
    )
    assert paired.paired
    assert not apart.paired
    for name in ("0", "1"):
        widths = [
            found.high - found.low  # type: ignore[operator]
            for found in (shift(changes, name) for changes in (paired, apart))
        ]
        assert widths[0] < widths[1] / 2
    assert shift(paired, "0").significant
    assert not shift(apart, "0").significant


def test_accuracy_of_the_same_samples_is_compared_by_their_discordant_pairs() -> None:
    from bnaudit.stats.paired import accuracy_change

    before, after = scored(classifier()), scored(classifier(0.8))
    a, b = (x.network.correct.array() for x in (before, after))  # type: ignore[union-attr]
    counts = int((a & ~b).sum()), int((b & ~a).sum()), int((a & b).sum()), len(a)
    found = figure(between(before, after), "accuracy")
    expected = accuracy_change(*counts)
    assert (found.low, found.high) == pytest.approx(expected[3:])
    assert found.before == pytest.approx(a.mean())
    assert found.after == pytest.approx(b.mean())
    assert found.difference < 0
    surely = accuracy_change(*counts, level=1 - 0.01 / 6)
    assert (found.surely_low, found.surely_high) == pytest.approx(surely[3:])


def test_accuracy_without_marks_is_compared_as_of_other_samples() -> None:
    before, after = scored(classifier()), scored(classifier(0.8))
    assert before.network is not None
    old = replace(before, network=replace(before.network, correct=None, agreed=None))
    paired, apart = (figure(between(x, after), "accuracy") for x in (before, old))
    assert apart.difference == pytest.approx(paired.difference)
    assert apart.high - apart.low > paired.high - paired.low  # type: ignore[operator]


def test_marks_that_do_not_fit_the_samples_are_not_used() -> None:
    before, after = scored(classifier()), scored(classifier(0.8))
    assert before.network is not None
    wrong = replace(before.network, correct=Marks.of(np.ones(7, dtype=np.bool_)), agreed=None)
    none = replace(before.network, correct=None, agreed=None)
    found = [figure(between(replace(before, network=x), after), "accuracy") for x in (wrong, none)]
    assert found[0] == found[1]


def test_more_disagreement_is_a_rise() -> None:
    before, after = scored(classifier()), scored(classifier(0.8))
    found = figure(between(before, after), "disagreement")
    assert before.network is not None
    assert after.network is not None
    assert found.before == pytest.approx(1 - before.network.agreement)  # type: ignore[operator]
    assert found.after == pytest.approx(1 - after.network.agreement)  # type: ignore[operator]
    assert found.surely_low is not None
    assert found.surely_low > 0
    back = figure(between(after, before), "disagreement")
    assert back.surely_high == pytest.approx(-found.surely_low)


def test_mini_batches_of_another_size_are_no_disagreement_to_compare() -> None:
    x = gaussian()
    before, after = (audit_of(classifier(), x, batch_size=size) for size in (32, 16))
    changes = between(before, after)
    assert [network.figure for network in changes.network] == ["total_esm"]
    (note,) = changes.notes
    assert "Mini-batches of 32 before, of 16 after" in note


def test_losses_differ_with_the_error_of_both() -> None:
    before, after = scored(classifier()), scored(classifier(0.8), seed=1)
    found = figure(between(before, after), "loss")
    scores = [a.network.deployed for a in (before, after) if a.network is not None]
    losses = [(s.loss, s.loss_standard_error) for s in scores if s is not None]
    (old, old_error), (new, new_error) = losses
    half = 1.959964 * math.hypot(old_error, new_error)  # type: ignore[arg-type]
    assert found.difference == pytest.approx(new - old)  # type: ignore[operator]
    assert found.high == pytest.approx(found.difference + half, rel=1e-5)


def test_a_layer_that_got_worse_is_told_from_those_that_did_not() -> None:
    before, after = measured(0.1, 0.1, 0.1), measured(0.1, 0.4, 0.1, seed=1)
    changes = between(before, after)
    assert [change.name for change in changes.layers if change.output_shift.significant] == ["1"]  # type: ignore[union-attr]
    assert figure(changes, "total_esm").significant


def test_few_samples_give_differences_without_limits() -> None:
    changes = between(measured(0.5, samples=5), measured(0.1, samples=5))
    for found in (shift(changes, "0"), figure(changes, "total_esm")):
        assert found.difference < 0
        assert found.low is found.high is found.surely_low is found.surely_high is None
        assert not found.significant


def test_an_audit_of_before_outputs_were_kept_by_group_still_has_its_layers_compared() -> None:
    before, after = measured(0.1, 0.1), measured(0.4, 0.1)
    document = json.loads(before.to_json())
    for layer in document["layers"]:
        del layer["left_out_squared_output_shift"]
    old, whole = between(Audit.from_json(json.dumps(document)), after), between(before, after)
    assert shift(old, "0").significant
    assert shift(old, "0").difference == shift(whole, "0").difference
    assert figure(old, "total_esm").difference == pytest.approx(
        figure(whole, "total_esm").difference
    )
    assert figure(old, "total_esm").low is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_figures_that_are_not_finite_are_none(bad: float) -> None:
    before, after = measured(0.1, 0.2), measured(0.4, 0.2)
    layer = after.layer("0")
    assert layer.output_shift is not None
    for broken in (
        replace(layer, output_shift=replace(layer.output_shift, value=bad)),
        replace(layer, output_shift=replace(layer.output_shift, standard_error=bad)),
        replace(layer, left_out_squared_output_shift=(bad,) * 20),
    ):
        changes = between(before, replace(after, layers=(broken, after.layer("1"))))
        first = changes.layers[0]
        assert first.output_shift is None
        assert first.note == "no figure after: it is not finite"
        assert figure(changes, "total_esm").after == pytest.approx(0.2, abs=0.1)
        assert Changes.from_json(changes.to_json()) == changes


def test_a_layer_that_outputs_a_constant_has_no_output_shift_to_compare() -> None:
    silent = chain(0.1, 0.2)
    nn.init.zeros_(silent.get_submodule("1").get_parameter("weight"))
    changes = between(measured(0.1, 0.2), audit_of(silent, gaussian()))
    layer = changes.layers[1]
    assert layer.output_shift is None
    assert layer.total_shift is not None
    assert layer.note == "no figure after: γ is 0 in every channel"


def test_the_unweighted_shift_has_its_interval_but_takes_no_part_in_the_family() -> None:
    found = between(measured(0.1), measured(0.5)).layers[0].total_shift
    assert found is not None
    assert found.low is not None
    assert found.low > 0
    assert found.surely_low is None


def test_the_sides_say_what_they_are_of() -> None:
    changes = between(measured(0.1, seed=3, samples=100), measured(0.1))
    assert changes.before.source == "old"
    assert changes.after.source == "new"
    assert changes.before.samples == 100
    assert changes.before.model == "Sequential"
    assert changes.before.data == "TensorDataset object"


def test_other_circumstances_are_noted() -> None:
    before = measured(0.1)
    assert before.data is not None
    data = replace(before.data, source="npz:other.npz", transform="imagenet", fingerprint="other")
    other = replace(before, data=data, dtype="bfloat16", versions={"bnaudit": "99.3.1"})
    changes = between(before, other)
    assert not changes.paired
    notes = " ".join(changes.notes)
    assert "Other data: TensorDataset object before, npz:other.npz after." in notes
    assert "Another transform: none before, imagenet after." in notes
    assert "float32 before, in bfloat16 after" in notes
    assert "by 99.3 after" in notes


def test_samples_that_could_not_be_read_end_the_pairing() -> None:
    before = measured(0.1)
    assert before.data is not None
    skipped = replace(before, data=replace(before.data, skipped=("a.jpg: truncated",)))
    changes = between(before, skipped)
    assert not changes.paired
    assert "other samples of them could not be read" in " ".join(changes.notes)
    assert between(skipped, skipped).paired


def test_more_figures_make_the_simultaneous_limits_wider_and_leave_the_others() -> None:
    x = gaussian()
    few, many = chain(0.2), chain(0.2, *[0.1] * 29)
    y = gaussian(seed=9)
    narrow, wide = (shift(between(audit_of(m, x), audit_of(m, y)), "0") for m in (few, many))
    assert wide.low == pytest.approx(narrow.low)
    assert wide.surely_low < narrow.surely_low  # type: ignore[operator]


def copies(layers: tuple[LayerAudit, ...], times: int) -> tuple[LayerAudit, ...]:
    return tuple(replace(x, name=f"{i}.{x.name}") for i in range(times) for x in layers)


def test_two_hundred_layers_are_compared_in_less_than_a_second() -> None:
    before, after = (
        replace(audit, layers=copies(audit.layers, 100))
        for audit in (measured(0.1, 0.1, samples=1300), measured(0.1, 0.2, samples=1300, seed=1))
    )
    between(before, after)
    start = time.perf_counter()
    changes = between(before, after)
    assert time.perf_counter() - start < 1.0
    assert len(changes.layers) == 200
