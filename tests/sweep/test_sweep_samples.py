"""`sweep_samples`: the statistics of subsets, what is concluded from them, and when nothing is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from sweep_inputs import brighter, digits, pixels, sample_model
from torch.utils.data import DataLoader, TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results.sweep import Conclusion, Sweep
from bnaudit.verbs.sweep_samples import sweep_samples


@cache
def swept() -> Sweep:
    return sweep_samples(
        sample_model("lagging_ema"),
        digits("train", 400),
        verify=digits("test"),
        values=[4, 32, 128, 400],
        draws=3,
    )


def test_more_samples_leave_less_shift_and_few_of_them_recover_the_accuracy() -> None:
    sweep = swept()
    shifts = [point.shift.value for point in sweep.points if point.shift is not None]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[0] > 0.15
    assert shifts[-1] < 0.03
    (data,) = sweep.data
    assert data.estimates.accuracy is not None
    assert data.estimates.accuracy.value < 0.7
    accuracies = [p.scores.accuracy.value for p in sweep.points if p.scores.accuracy is not None]
    assert min(accuracies[1:]) > 0.97


def test_it_says_how_many_suffice_and_whether_that_is_certain() -> None:
    conclusion = swept().conclusion("enough-samples")
    assert conclusion is not None
    assert conclusion.value in (32, 128)
    assert conclusion.gain is not None
    assert conclusion.gain.difference >= -0.005
    # 497 images do not rule out a loss of half a point
    assert not conclusion.significant
    assert "Probably" in conclusion.sentence
    assert conclusion.candidates[0] == conclusion.value


def test_all_samples_are_one_draw_and_what_recalibrate_gives() -> None:
    whole = swept().points[-1]
    assert [point.draws for point in swept().points] == [3, 3, 3, 1]
    made = bnaudit.recalibrate(
        sample_model("lagging_ema"), digits("train", 400), verify=digits("test")
    )
    verification = made.report.verification
    assert verification is not None
    assert verification.accuracy is not None
    assert whole.scores.accuracy is not None
    assert whole.scores.accuracy.value == pytest.approx(verification.accuracy.after)
    assert whole.scores.accuracy.low is None  # of one draw there is no interval over draws
    assert verification.layer_shift is not None
    assert whole.shift is not None
    assert whole.shift.value == pytest.approx(verification.layer_shift.after, abs=0.01)


def test_a_subset_has_the_moments_of_its_own_samples() -> None:
    """NumPy on the first layer's input, over the draws that the seed gives."""
    import random

    x, _ = pixels("train", 60)
    model = sample_model("lagging_ema")
    order = random.Random(5).sample(range(60), 60)[:8]
    read = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    first = {}
    layer = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    layer.register_forward_pre_hook(lambda m, args: first.setdefault("x", args[0]))
    with torch.no_grad():
        model(x[read[sorted(order)]])
    expected = first["x"].double().numpy().mean((0, 2, 3))

    from bnaudit.engine.regroup import regrouped
    from bnaudit.verbs.calibration_pool import calibration_pool
    from bnaudit.verbs.workbench import workbench

    bench = workbench(sample_model("lagging_ema"), TensorDataset(x), seed=5)
    with bench.subject.conditions.entered(bench.subject.model):
        pool = calibration_pool(bench, bench.data, lambda line: None)
        statistics = pool.exact(regrouped(pool.batches, order, 32))
    mean, _ = next(iter(statistics.values()))
    np.testing.assert_allclose(mean.numpy(), expected, atol=1e-6)


def test_the_same_seed_gives_the_same_sweep_and_the_model_is_left_alone() -> None:
    model = sample_model("small_batch").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(seed: int) -> Sweep:
        return sweep_samples(
            model, digits("train", 40), verify=digits("test", 60), values=[8], draws=2, seed=seed
        )

    assert run(1).to_json() == run(1).to_json()
    assert run(1).points[0].shift != run(2).points[0].shift
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def unlabelled(values: list[int], draws: int, held_out: slice) -> Conclusion:
    """What is said of up to 300 samples, on some of the held-out digits without their labels."""
    made = sweep_samples(
        sample_model("lagging_ema"),
        TensorDataset(pixels("train", 300)[0]),
        verify=TensorDataset(pixels("test")[0][held_out]),
        values=values,
        draws=draws,
    )
    found = made.conclusion("enough-samples")
    assert found is not None
    return found


def test_a_single_draw_is_never_certain() -> None:
    one, three = (unlabelled([200, 300], draws, slice(400)) for draws in (1, 3))
    assert one.value == three.value == 200
    assert not one.significant
    assert three.significant
    assert three.sentence.startswith("200 samples suffice")
    assert one.sentence.startswith("Probably 200 samples suffice")


def test_the_largest_number_that_was_tried_is_never_certain() -> None:
    found = unlabelled([4, 300], 1, slice(400))
    assert found.value == 300
    assert not found.significant


def test_few_held_out_samples_make_nothing_certain() -> None:
    """Without labels: the residual on 16 images is mostly their chance."""
    for start in (0, 16):
        found = unlabelled([32, 128, 300], 5, slice(start, start + 16))
        assert found.value is not None
        assert not found.significant


def test_where_the_held_out_data_are_others_not_even_all_samples_suffice() -> None:
    sweep = sweep_samples(
        sample_model("healthy"), digits("train", 200), verify=brighter("test", 200), draws=1
    )
    conclusion = sweep.conclusion("enough-samples")
    assert conclusion is not None
    assert conclusion.value is None
    assert "Not even 200 samples suffice" in conclusion.sentence
    assert [finding.code for finding in sweep.findings] == ["BN121"]


def test_without_labels_the_residual_alone_decides() -> None:
    sweep = sweep_samples(
        sample_model("lagging_ema"),
        TensorDataset(pixels("train", 300)[0]),
        verify=TensorDataset(pixels("test", 300)[0]),
        values=[16, 128, 300],
        draws=2,
    )
    conclusion = sweep.conclusion("enough-samples")
    assert conclusion is not None
    assert conclusion.value is not None
    assert "the residual alone decides" in conclusion.sentence
    assert all(point.scores.accuracy is None for point in sweep.points)
    assert all(point.scores.agreement is not None for point in sweep.points)


def test_a_loader_is_read_once_and_split() -> None:
    passes = []

    class Counted:
        def __iter__(self):  # type: ignore[no-untyped-def]
            passes.append(1)
            return iter(DataLoader(digits("train", 128), batch_size=16))

    sweep = sweep_samples(sample_model("lagging_ema"), Counted(), values=[8, 32, 64], draws=2)
    assert len(passes) == 1
    assert sweep.calibration is not None
    assert sweep.calibration.samples == 64
    assert sweep.data[0].estimates.samples == 64


def test_known_samples_take_no_part_in_the_trial() -> None:
    x, y = pixels("train", 60)
    held_out = TensorDataset(x[50:], y[50:])
    sweep = sweep_samples(
        sample_model("healthy"),
        TensorDataset(x[:54], y[:54]),
        verify=held_out,
        values=[8, 54],
        draws=1,
    )
    assert sweep.data[0].estimates.samples == 6
    assert any("4 held-out samples left out" in note for note in sweep.notes)
    with pytest.raises(InputError, match="10 of 10 held-out samples are calibration samples too"):
        sweep_samples(sample_model("healthy"), digits("train", 60), verify=held_out)


def test_more_samples_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="64 samples: there are 40 to draw from"):
        sweep_samples(
            sample_model("healthy"), digits("train", 40), verify=digits("test", 20), values=[8, 64]
        )


def test_the_result_survives_its_document() -> None:
    assert Sweep.from_json(swept().to_json()) == swept()
    assert len(swept().to_frame()) == 4
