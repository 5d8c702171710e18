"""`bnaudit.recalibrate` on small networks: what is read, what decides, what is written."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from alone import recalibrate_alone
from tiny_models import classifier, images
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from untimed import untimed

from bnaudit.errors import InputError, ModelError
from bnaudit.verbs.sources import reader_of, split_reader

CPU = torch.device("cpu")


def trained(x: Tensor) -> nn.Module:
    """A classifier whose statistics are those of `x`: it is right wherever labels come from it."""
    model = classifier()
    recalibrate_alone(model, [x])
    return model.eval()


@torch.no_grad()
def labels_by(model: nn.Module, x: Tensor) -> Tensor:
    return model.eval()(x).argmax(1)


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if "running_" in k}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a
    )


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    """600 images, and the classes that a network with the right statistics gives them."""
    x, _ = images(600)
    return x, labels_by(trained(x), x)


# What is written


def test_without_verification_the_statistics_are_written_and_can_be_put_back() -> None:
    model, (x, _) = classifier(), images()
    before = statistics_of(model)
    result = recalibrate_alone(model, TensorDataset(x))
    after = statistics_of(model)
    assert result.applied
    assert result.decision.level == "unverified"
    assert not any(torch.equal(before[key], after[key]) for key in before)
    result.revert()
    assert not result.applied
    assert same(statistics_of(model), before)
    result.revert()
    assert same(statistics_of(model), before)
    result.apply()
    result.apply()
    assert result.applied
    assert same(statistics_of(model), after)
    result.revert()
    assert same(statistics_of(model), before)


def test_what_is_written_is_what_the_result_holds() -> None:
    model, (x, _) = classifier(), images()
    result = recalibrate_alone(model, TensorDataset(x))
    written = statistics_of(model)
    for name, (mean, var) in result.statistics.items():
        assert mean.dtype == var.dtype == torch.float64
        assert torch.equal(written[f"{name}.running_mean"], mean.float())
        assert torch.equal(written[f"{name}.running_var"], var.float())


def test_old_statistics_that_are_not_finite_are_put_back_bit_for_bit() -> None:
    model, (x, _) = classifier(), images()
    model[8].running_mean[2] = float("nan")  # the last layer: no other one sees it
    before = statistics_of(model)
    result = recalibrate_alone(model, TensorDataset(x))
    assert model[8].running_mean.isfinite().all()
    result.revert()
    assert same(statistics_of(model), before)


@pytest.mark.parametrize("method", ["exact", "sequential", "precise"])
def test_statistics_that_are_not_finite_are_repaired(method: Any) -> None:
    """One infinite input in training leaves NaN for good: exact needs nothing of the old ones."""
    model, (x, _) = classifier(), images()
    expected = recalibrate_alone(classifier(), TensorDataset(x), method=method).statistics
    model[1].running_mean[2] = float("nan")
    found = recalibrate_alone(model, TensorDataset(x), method=method).statistics
    for name, (mean, var) in expected.items():
        torch.testing.assert_close(found[name], (mean, var))


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel])
def test_the_model_inside_a_wrapper_is_recalibrated(wrap: Callable[[nn.Module], Any]) -> None:
    x, _ = images()
    expected = recalibrate_alone(classifier(), TensorDataset(x)).statistics
    wrapped = wrap(classifier())
    before = statistics_of(wrapped)
    result = recalibrate_alone(wrapped, TensorDataset(x))
    assert result.statistics.keys() == expected.keys()
    for name, (mean, _) in expected.items():
        assert torch.equal(wrapped.module.get_submodule(name).running_mean, mean.float())
    result.revert()
    assert same(statistics_of(wrapped), before)


def test_the_same_call_twice_gives_the_same_report(data: tuple[Tensor, Tensor]) -> None:
    halves = TensorDataset(data[0][:300], data[1][:300]), TensorDataset(data[0][300:])
    reports = [
        recalibrate_alone(classifier(), halves[0], verify=halves[1], max_memory="1GB")
        for _ in range(2)
    ]
    assert untimed(reports[0].report) == untimed(reports[1].report)


# What decides


def test_a_gain_is_accepted(data: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = classifier(), data
    deployed = float((labels_by(model, x[300:]) == y[300:]).float().mean())
    result = recalibrate_alone(
        model, TensorDataset(x[:300]), verify=TensorDataset(x[300:], y[300:])
    )
    verification = result.report.verification
    assert result.decision.level == "gain"
    assert result.applied
    assert verification.labelled == 300
    assert verification.accuracy.before == pytest.approx(deployed)
    recalibrated = float((labels_by(model, x[300:]) == y[300:]).float().mean())
    assert verification.accuracy.after == pytest.approx(recalibrated)
    assert verification.accuracy.low > 0.1
    assert verification.loss.difference < 0
    assert verification.layer_shift.high < 0
    assert verification.p_value < 1e-6
    assert verification.only_after_correct - verification.only_before_correct == pytest.approx(
        300 * (recalibrated - deployed), abs=1e-3
    )


def test_a_loss_is_not_written_unless_it_is_forced(data: tuple[Tensor, Tensor]) -> None:
    """Calibrated on other data than those it is for."""
    model, (x, y) = trained(data[0]), data
    before = statistics_of(model)
    arguments: Any = {"data": TensorDataset(3 * x[:300] - 4), "verify": TensorDataset(x, y)}
    result = recalibrate_alone(model, **arguments)
    assert result.decision.level == "loss"
    assert not result.decision.use
    assert not result.applied
    assert same(statistics_of(model), before)
    assert "differ from the verification data" in result.decision.sentence
    forced = recalibrate_alone(model, **arguments, force=True)
    assert forced.decision.forced
    assert not forced.decision.accept
    assert forced.applied
    assert "in spite of this" in forced.decision.sentence
    assert float((labels_by(model, x) == y).float().mean()) < 0.9
    forced.revert()
    assert same(statistics_of(model), before)
    result.apply()  # the statistics are in hand all the same
    assert not same(statistics_of(model), before)


def test_statistics_that_fit_already_are_accepted_without_a_gain(
    data: tuple[Tensor, Tensor],
) -> None:
    model, (x, y) = trained(data[0]), data
    result = recalibrate_alone(
        model, TensorDataset(x[:300]), verify=TensorDataset(x[300:], y[300:]), max_loss=10
    )
    assert result.decision.level == "no-loss"
    assert result.applied
    assert "fitted these data already" in result.decision.sentence


def test_too_few_samples_leave_it_undecided_with_the_number_that_would_do(
    data: tuple[Tensor, Tensor],
) -> None:
    model, (x, _) = classifier(), data
    before = statistics_of(model)
    y = torch.arange(len(x)) % 4  # no network knows these
    result = recalibrate_alone(
        model, TensorDataset(x[:300]), verify=TensorDataset(x[300:340], y[300:340])
    )
    assert result.decision.level == "undecided"
    assert not result.applied
    assert same(statistics_of(model), before)
    assert result.decision.samples_needed is None or result.decision.samples_needed > 40
    assert "neither is the gain significant" in result.decision.sentence


def test_without_labels_a_better_fit_is_accepted_and_what_cannot_be_known_is_said(
    data: tuple[Tensor, Tensor],
) -> None:
    model, (x, _) = classifier(), data
    result = recalibrate_alone(model, TensorDataset(x[:300]), verify=TensorDataset(x[300:]))
    verification = result.report.verification
    assert result.decision.level == "better-fit"
    assert result.applied
    assert "cannot be known" in result.decision.sentence
    assert verification.accuracy is None
    assert verification.labelled == 0
    assert verification.entropy is not None
    assert 0 <= verification.agreement.low <= verification.agreement.value <= 1


def test_without_labels_a_worse_fit_is_not_written(data: tuple[Tensor, Tensor]) -> None:
    model, (x, _) = trained(data[0]), data
    before = statistics_of(model)
    result = recalibrate_alone(model, TensorDataset(3 * x[:300] - 4), verify=TensorDataset(x))
    assert result.decision.level == "worse-fit"
    assert not result.applied
    assert same(statistics_of(model), before)


def test_with_nothing_to_change_nothing_is_forced() -> None:
    model, (x, y) = classifier(), images()
    result = recalibrate_alone(model, TensorDataset(x, y), above=1e9, force=True, verify_split=0.5)
    assert result.decision.level == "nothing-to-change"
    assert not result.applied
    assert result.report.verification is None


# Which samples


class Counted(Dataset):
    """Hands out sample i and notes it."""

    def __init__(self, n: int = 100) -> None:
        self.x, _ = images(n)
        self.x[:, 0, 0, 0] = torch.arange(n, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        return self.x[i]


class Streamed(IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        yield from Counted()


SOURCES: dict[str, Callable[[], Any]] = {
    "dataset": Counted,
    "loader": lambda: DataLoader(Counted(), batch_size=8, shuffle=True),
    "iterable dataset": lambda: DataLoader(Streamed(), batch_size=8),
    "list": lambda: Counted().x.split(8),
    "generator": lambda: iter(Counted().x.split(8)),
}


def numbers(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in batch.data[:, 0, 0, 0]]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("source", SOURCES)
def test_a_split_has_every_sample_on_one_side(source: str, share: float) -> None:
    torch.manual_seed(0)
    reader = reader_of(SOURCES[source](), 8, None, 0, 0, CPU)
    mine, others = (numbers(part) for part in split_reader(reader, share, None))
    assert sorted(mine + others) == list(range(100))
    assert len(others) == pytest.approx(100 * share, abs=8)


@pytest.mark.parametrize("source", SOURCES)
def test_a_split_leaves_no_overlap_and_reads_what_was_asked(source: str) -> None:
    torch.manual_seed(0)
    result = recalibrate_alone(
        classifier(), SOURCES[source](), verify_split=0.5, samples=40, verify_samples=24
    )
    verification = result.report.verification
    assert verification.overlap == 0
    assert result.report.data.samples == 40
    assert verification.data.samples == 24


def test_a_split_of_data_with_duplicates_leaves_them_out() -> None:
    x, y = images(100)
    twice = TensorDataset(torch.cat([x, x[:20]]), torch.cat([y, y[:20]]))
    result = recalibrate_alone(classifier(), twice, verify_split=0.5)
    verification = result.report.verification
    assert 0 < verification.overlap < 20
    assert verification.data.samples == verification.labelled == 60 - verification.overlap


def test_a_stream_of_one_batch_cannot_be_split() -> None:
    with pytest.raises(InputError, match="cannot be split"):
        recalibrate_alone(classifier(), [images()[0]], verify_split=0.5)


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(InputError, match="too few to be split"):
        recalibrate_alone(classifier(), TensorDataset(images(1)[0]), verify_split=0.5)


class Named(Dataset):
    """Samples as dicts."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.x[i]} | ({"label": self.y[i]} if self.y is not None else {})


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "pairs": lambda x, y: TensorDataset(x, y),
    "singles": lambda x, y: TensorDataset(x),
    "tensors": lambda x, y: x.split(16),
    "dicts": Named,
    "dicts without labels": lambda x, y: Named(x),
    "tuples": lambda x, y: list(zip(x.split(16), y.split(16), strict=True)),
}


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=[pytest.mark.slow] * (form not in ("pairs", "tensors", "dicts")))
        for form in FORMS
    ],
)
def test_an_overlap_is_left_out_and_the_rest_is_verified(
    form: str, data: tuple[Tensor, Tensor]
) -> None:
    """The figures are those of verification data without it. Labels do not count."""
    x, y = data
    make = FORMS[form]

    def verified(known: Tensor, labels: Tensor) -> Any:
        calibration = TensorDataset(x[:200], 3 - y[:200])
        result = recalibrate_alone(
            classifier(), calibration, verify=make(known, labels), batch_size=16
        )
        return result.report.verification

    order = torch.randperm(250, generator=torch.Generator().manual_seed(0)) + 150
    mixed = verified(x[order], y[order])
    fresh = order[order >= 200]
    clean = verified(x[fresh], y[fresh])
    assert (mixed.overlap, clean.overlap) == (50, 0)
    assert mixed.data.samples == clean.data.samples == 200
    assert mixed.accuracy == clean.accuracy
    assert mixed.agreement == clean.agreement
    assert mixed.entropy.before == pytest.approx(clean.entropy.before)
    assert mixed.entropy.after == pytest.approx(clean.entropy.after)


@pytest.mark.parametrize("form", FORMS)
def test_verification_data_that_are_the_calibration_data_are_refused(
    form: str, data: tuple[Tensor, Tensor]
) -> None:
    model, (x, y) = classifier(), data
    before = statistics_of(model)
    with pytest.raises(InputError, match="prove nothing"):
        recalibrate_alone(
            model, FORMS[form](x[:100], y[:100]), verify=FORMS[form](x[40:140], y[40:140])
        )
    assert same(statistics_of(model), before)


@pytest.mark.parametrize("form", FORMS)
def test_data_of_every_form_calibrate_alike(form: str) -> None:
    x, y = images()
    expected = recalibrate_alone(classifier(), [x]).statistics
    found = recalibrate_alone(classifier(), FORMS[form](x, y)).statistics
    for name, pair in expected.items():
        torch.testing.assert_close(found[name], pair, rtol=1e-5, atol=1e-5)


class Numbered(nn.Module):
    """Takes the numbers of its samples beside the images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()

    def forward(self, image: Tensor, idx: Tensor) -> Tensor:
        return self.net(image) + 0 * idx[:, None]


def numbered(x: Tensor, first: int) -> list[dict[str, Tensor]]:
    """Dicts of 20 images each, numbered from `first` on."""
    numbers = torch.arange(first, first + len(x))
    return [
        {"idx": i, "image": part} for i, part in zip(numbers.split(20), x.split(20), strict=True)
    ]


def test_numbers_of_samples_beside_the_images_do_not_hide_an_overlap() -> None:
    x, _ = images(200)
    mixed = recalibrate_alone(Numbered(), numbered(x[:100], 0), verify=numbered(x[80:], 500))
    assert mixed.report.verification.overlap == 20
    assert mixed.report.verification.data.samples == 100
    with pytest.raises(InputError, match="prove nothing"):
        recalibrate_alone(Numbered(), numbered(x[:100], 0), verify=numbered(x[20:120], 500))


class OfImages(nn.Module):
    """Takes a list of images of different sizes, as detection models do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        resized = [nn.functional.interpolate(i[None], (8, 8)) for i in images]
        return [{"scores": row} for row in self.net(torch.cat(resized))]


@pytest.mark.parametrize("targets", [True, False])
def test_lists_of_images_are_calibrated_split_and_left_out_where_they_overlap(
    targets: bool,
) -> None:
    x, _ = images(48)
    singles = [image[:, : 6 + i % 3] for i, image in enumerate(x)]
    lists: list[Any] = [singles[i : i + 4] for i in range(0, 48, 4)]
    if targets:
        lists = [(one, [{"boxes": torch.zeros(1, 4)} for _ in one]) for one in lists]
    known = recalibrate_alone(OfImages(), lists[:8], verify=[*lists[6:], *lists[10:]])
    assert known.report.verification.overlap == 8
    assert known.report.verification.data.samples == 24
    assert known.report.verification.relative_rms > 0
    split = recalibrate_alone(OfImages(), lists, verify_split=0.5)
    assert split.report.data.samples == split.report.verification.data.samples == 24
    assert split.report.residual < 1e-6


# How many samples


def test_too_little_memory_for_a_number_of_samples_takes_a_subset_and_says_its_size() -> None:
    x, _ = images(200)
    said: list[str] = []
    whole = recalibrate_alone(classifier(), TensorDataset(x), samples=200, batch_size=8)
    limit = whole.report.memory.needed // 2
    result = recalibrate_alone(
        classifier(),
        TensorDataset(x),
        samples=200,
        batch_size=8,
        max_memory=limit,
        say=said.append,
    )
    report = result.report
    assert report.method == "exact"
    assert 40 < report.data.samples < 100
    assert report.memory.needed <= report.memory.limit == limit
    (note,) = report.notes
    assert f"a random subset of {report.data.samples}" in note
    assert said == [note]
    assert report.noise_floor > whole.report.noise_floor
    assert report.residual < 1e-6
    assert whole.report.notes == ()


def test_a_stream_that_does_not_fit_gives_its_first_batches() -> None:
    x, _ = images(200)
    whole = recalibrate_alone(classifier(), x.split(8), samples=200)
    limit = whole.report.memory.needed // 2
    result = recalibrate_alone(classifier(), x.split(8), samples=200, max_memory=limit)
    taken = result.report.data.samples
    assert 40 < taken < 100
    assert f"the loader's first {taken}" in result.report.notes[0]
    expected = recalibrate_alone(classifier(), x[:taken].split(8)).statistics
    for name, pair in expected.items():
        torch.testing.assert_close(result.statistics[name], pair)


@pytest.mark.parametrize("max_memory", [100_000, "100kB", "0.1 MB"])
def test_too_little_memory_for_all_samples_goes_layer_by_layer(max_memory: int | str) -> None:
    x, _ = images(200)
    expected = recalibrate_alone(classifier(), TensorDataset(x)).statistics
    result = recalibrate_alone(classifier(), TensorDataset(x), max_memory=max_memory)
    assert (result.report.asked, result.report.method) == ("exact", "sequential")
    assert result.report.data.samples == 200
    assert "layer by layer" in result.report.notes[0]
    for name, pair in expected.items():
        torch.testing.assert_close(result.statistics[name], pair, rtol=1e-5, atol=1e-5)


def test_less_memory_than_a_batch_needs_goes_layer_by_layer() -> None:
    x, _ = images(200)
    result = recalibrate_alone(classifier(), TensorDataset(x), samples=200, max_memory=1000)
    assert result.report.method == "sequential"
    assert result.report.data.samples == 200


@pytest.mark.parametrize("size", [0, -1])
def test_a_limit_of_no_memory_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="max_memory"):
        recalibrate_alone(classifier(), TensorDataset(images()[0]), max_memory=size)


# What is asked


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict({"norm1": nn.BatchNorm2d(3), "norm2": nn.BatchNorm2d(3)})

    def forward(self, x: Tensor) -> Tensor:
        return self.features["norm2"](self.features["norm1"](x)).mean((2, 3))


@pytest.mark.parametrize(
    ("layers", "changed"),
    [
        ("*", ["features.norm1", "features.norm2"]),
        ("features.norm2", ["features.norm2"]),
        ("*1", ["features.norm1"]),
        ("/norm[12]$/", ["features.norm1", "features.norm2"]),
        (["/^features/", "*.norm1"], ["features.norm1", "features.norm2"]),
        (("*.norm1",), ["features.norm1"]),
    ],
)
def test_layers_are_chosen_by_globs_and_regular_expressions(
    layers: Any, changed: list[str]
) -> None:
    result = recalibrate_alone(Deep(), [images()[0]], layers=layers)
    assert sorted(result.statistics) == changed
    assert [layer.name for layer in result.report.layers if layer.changed] == changed


def test_a_pattern_that_matches_nothing_is_told_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"features\.norn1.*matches no layer.*features\.norm1"):
        recalibrate_alone(Deep(), [images()[0]], layers="features.norn1")


def test_a_pattern_that_is_no_regular_expression_is_told_so() -> None:
    with pytest.raises(InputError, match="not a regular expression"):
        recalibrate_alone(Deep(), [images()[0]], layers="/(/")


WRONG: dict[str, dict[str, Any]] = {
    "verify and verify_split": {"verify": [images(8)[0]], "verify_split": 0.5},
    "verify_split of all": {"verify_split": 1.0},
    "verify_split below zero": {"verify_split": -0.5},
    "batch_size": {"batch_size": 0},
    "samples": {"samples": 0},
    "a size without a number": {"max_memory": "much"},
    "prior below zero": {"prior": -5.0},
    "prior that cancels the samples": {"prior": -200.0},
    "prior that is not finite": {"prior": math.nan},
    "a method that does not exist": {"method": "exactly"},
    "max_loss below zero": {"max_loss": -1.0},
    "momentum above one": {"method": "ema", "momentum": 3.0},
    "a dtype that does not exist": {"dtype": "int8"},
    "verify_samples without verification": {"verify_samples": 50},
    "momentum of another method": {"method": "precise", "momentum": 0.1},
    "momentum without a method": {"momentum": 0.1},
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_an_argument_that_cannot_be_meant_is_refused(arguments: dict[str, Any]) -> None:
    model, (x, y) = classifier(), images()
    before = statistics_of(model)
    with pytest.raises(InputError):
        recalibrate_alone(model, TensorDataset(x, y), **arguments)
    assert same(statistics_of(model), before)


@pytest.mark.parametrize(
    "data", [TensorDataset(*images(32)), list(images(32)[0].split(8)), images(32)[0].split(8)]
)
def test_calibration_data_given_as_verification_data_are_refused(data: Any) -> None:
    model = classifier()
    before = statistics_of(model)
    with pytest.raises(InputError, match="verify is the calibration data"):
        recalibrate_alone(model, data, verify=data)
    assert same(statistics_of(model), before)


def test_a_model_without_batchnorm_is_told_so() -> None:
    with pytest.raises(ModelError, match="nothing to recalibrate"):
        recalibrate_alone(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), [images()[0]])


def test_a_model_whose_layers_keep_no_statistics_has_nothing_to_change() -> None:
    layers = [nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()]
    result = recalibrate_alone(nn.Sequential(*layers), [images()[0]])
    assert result.decision.level == "nothing-to-change"
    assert "no running statistics" in result.report.layers[0].reason


@pytest.mark.parametrize("data", [[], iter([]), [torch.zeros(0, 3, 8, 8)]])
def test_data_without_a_sample_are_told_so(data: Any) -> None:
    with pytest.raises(InputError, match="no batch"):
        recalibrate_alone(classifier(), data)


def test_verification_data_without_a_sample_are_told_so() -> None:
    model = classifier()
    before = statistics_of(model)
    with pytest.raises(InputError, match="verification"):
        recalibrate_alone(model, [images()[0]], verify=iter([]))
    assert same(statistics_of(model), before)


def test_a_forward_of_the_users_own_is_used_for_everything(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    batches = [{"a": a, "b": b} for a, b in zip(x.split(50), y.split(50), strict=True)]

    def forward(model: nn.Module, batch: Any) -> Tensor:
        return model(batch["a"] * 2)

    found = recalibrate_alone(
        classifier(), batches[:6], verify=batches[6:], forward=forward
    ).statistics
    expected = recalibrate_alone(classifier(), [2 * x[:300]]).statistics
    for name, pair in expected.items():
        torch.testing.assert_close(found[name], pair, rtol=1e-5, atol=1e-5)


# What is reported


@pytest.mark.parametrize("method", ["exact", "sequential", "precise", "ema"])
def test_the_report_is_one_valid_json_document(method: Any, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    result = recalibrate_alone(
        classifier(), TensorDataset(x, y), verify_split=0.5, method=method, prior=16
    )

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads(result.report.to_json(), parse_constant=refuse)
    assert document["schema"] == 1
    assert document["method"] == document["asked"] == method
    assert document["prior"] == 16
    assert [layer["name"] for layer in document["layers"]] == ["1", "4", "8"]
    assert document["decision"]["sentence"] == result.decision.sentence
    assert document["verification"]["accuracy"]["before"] >= 0
    assert document["data"]["samples"] == document["verification"]["data"]["samples"] == 300


def test_the_table_has_a_row_for_every_layer() -> None:
    frame = recalibrate_alone(classifier(), [images()[0]], layers="4").to_frame()
    assert len(frame) == 3


def test_the_shift_before_splits_into_own_and_inherited() -> None:
    """The first layer inherits nothing; total is at most own and inherited, up to eps."""
    result = recalibrate_alone(classifier(), TensorDataset(images(400)[0]))
    first, *others = result.report.layers
    assert first.inherited_shift == pytest.approx(0, abs=1e-5)
    assert first.own_shift.plain == pytest.approx(first.calibration_before, rel=1e-4)
    for layer in others:
        total = layer.calibration_before
        assert total <= layer.own_shift.plain + layer.inherited_shift + 1e-2
        assert layer.inherited_shift > 0.01


def test_progress_and_words_are_the_callers() -> None:
    said: list[str] = []
    recalibrate_alone(classifier(), TensorDataset(images()[0]), say=said.append)
    assert any("activations of 200 samples" in line for line in said)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_every_module_stays(mode: bool) -> None:
    model = classifier().train(mode)
    model[4].train(not mode)
    before = copy.deepcopy([module.training for module in model.modules()])
    result = recalibrate_alone(model, TensorDataset(images()[0]), verify_split=0.5)
    result.apply()
    assert [module.training for module in model.modules()] == before


def test_training_goes_on_after_it_with_gradients() -> None:
    model, (x, y) = classifier().train(), images(32)
    with torch.inference_mode():
        result = recalibrate_alone(model, TensorDataset(x))
    assert not any(
        t.is_inference() for m in model.modules() if isinstance(m, _BatchNorm) for t in m.buffers()
    )
    nn.functional.cross_entropy(model(x), y).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert result.applied


@pytest.mark.parametrize("labels", [torch.arange(1, 201) % 5, torch.full((200,), -100)])
def test_labels_beyond_the_classes_are_refused_or_left_out(labels: Tensor) -> None:
    """Never counted as the nearest class: the accuracy would be made up."""
    x, _ = images(200)
    with pytest.raises(InputError):
        recalibrate_alone(classifier(), TensorDataset(3 - x), verify=TensorDataset(x, labels))
