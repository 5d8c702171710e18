"""Batches as loaders make them, with and without labels, and the outputs that come of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from alone import measure_alone
from tiny_models import classifier, images
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from untimed import untimed

from bnaudit.engine.batches import batch_size, labels_of, slice_batch
from bnaudit.errors import InputError, ModelError
from bnaudit.results import Audit


class Pair(NamedTuple):
    image: Tensor
    label: Tensor


FORMS = {
    "tensor": lambda x, y: x,
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "tuple of one": lambda x, y: (x,),
    "namedtuple": Pair,
    "dict": lambda x, y: {"image": x, "label": y},
    "dict, labels first": lambda x, y: {"labels": y, "pixel_values": x},
    "dict without labels": lambda x, y: {"x": x},
    "column of labels": lambda x, y: (x, y[:, None]),
    "labels and more": lambda x, y: (x, y, torch.zeros(len(x), 2), ["name"] * len(x)),
}
WITHOUT = {"tensor", "tuple of one", "dict without labels"}


@cache
def of_tensors(train_batch_size: int | None) -> Audit:
    batches = list(images(100)[0].split(20))
    return measure_alone(classifier(), batches, train_batch_size=train_batch_size)


@pytest.mark.parametrize("form", FORMS)
def test_batches_of_any_form_give_the_same_figures(form: str) -> None:
    x, y = images(100)
    batches = [FORMS[form](a, b) for a, b in zip(x.split(20), y.split(20), strict=True)]
    audit = measure_alone(classifier(), batches, train_batch_size=10)
    plain, same = of_tensors(None), of_tensors(10)
    assert [a.total_shift for a in audit.audited] == [a.total_shift for a in plain.audited]
    assert audit.network is not None
    assert same.network is not None
    assert audit.network.kl == same.network.kl
    assert audit.network.compared == 100
    labelled = form not in WITHOUT
    assert audit.data is not None
    assert audit.data.labelled == labelled
    assert (audit.network.deployed is not None) == labelled
    assert (audit.network.batch_statistics is not None) == labelled


def test_labels_that_are_no_classes_are_left_aside() -> None:
    x, y = images(64)
    for labels in (y.float(), y > 1, torch.zeros(64, 8, 8).long(), torch.rand(64, 3)):
        network = measure_alone(classifier(), [(x, labels)]).network
        assert network is not None
        assert network.deployed is None
        assert network.agreement is not None


def test_labels_beyond_the_outputs_are_an_error_that_names_both() -> None:
    x, y = images(64)
    with pytest.raises(InputError, match=r"0 to 9.*4 outputs"):
        measure_alone(classifier(), [(x, torch.arange(64) % 10)])
    with pytest.raises(InputError, match="labels"):
        measure_alone(classifier(), [(x, y - 1)])


def test_task_other_compares_outputs_and_ignores_labels() -> None:
    x, y = images(64)
    network = measure_alone(classifier(), [(x, y + 7)], task="other").network
    assert network is not None
    assert network.task == "other"
    assert network.relative_rms is not None
    assert network.relative_rms > 0.01
    assert network.agreement is None


class Heads(nn.Module):
    """A model with an output of the caller's choice."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.net, self.head = classifier(), head

    def forward(self, x: Tensor) -> Any:
        return self.head(self.net(x), x)


def test_the_relative_rms_of_structured_outputs_is_taken_over_all_tensors() -> None:
    data = TensorDataset(images(64)[0])
    plain = measure_alone(classifier(), data, task="other").network
    nested = measure_alone(Heads(lambda z, x: {"a": [z[:, :1]], "b": (z[:, 1:],)}), data).network
    assert plain is not None
    assert nested is not None
    assert nested.task == "other"
    assert nested.relative_rms == pytest.approx(plain.relative_rms, rel=1e-6)


def test_outputs_whose_shapes_differ_are_not_comparable_and_named() -> None:
    def head(z: Tensor, x: Tensor) -> dict[str, Tensor]:
        return {"boxes": z[z[:, 0] > z[:, 0].median() + z[0, 1].item() * 0.1], "map": x}

    network = measure_alone(Heads(head), TensorDataset(images(64)[0])).network
    assert network is not None
    assert "output.boxes" in network.not_comparable
    assert network.relative_rms == 0.0


def test_an_output_object_with_logits_is_a_classification() -> None:
    class Output(dict[str, Tensor]):
        pass

    x, y = images(64)
    direct = measure_alone(classifier(), [(x, y)]).network
    found = measure_alone(Heads(lambda z, x: Output(logits=z, hidden=x)), [(x, y)]).network
    assert found == direct


def test_a_compare_function_gives_its_own_figures_weighted_by_mini_batch() -> None:
    def compare(a: Tensor, b: Tensor) -> Mapping[str, float]:
        return {"worst": (a - b).abs().max().item(), "size": float(len(a))}

    network = measure_alone(
        classifier(), TensorDataset(*images(100)), batch_size=16, compare=compare
    ).network
    assert network is not None
    assert network.custom["size"] == 16
    assert network.custom["worst"] > 0


def test_task_classification_without_class_scores_is_an_error() -> None:
    with pytest.raises(InputError, match="class scores"):
        measure_alone(Heads(lambda z, x: [z]), [images(8)[0]], task="classification")


def test_a_forward_function_of_ones_own_is_used() -> None:
    x, y = images(64)
    plain = measure_alone(classifier(), [x])
    batches = [{"meta": "a", "pixels": x, "y": y}]
    found = measure_alone(
        classifier(), batches, forward=lambda model, batch: model(batch["pixels"])
    )
    assert [a.total_shift for a in found.audited] == [a.total_shift for a in plain.audited]


def test_detection_models_take_lists_of_images_of_different_sizes() -> None:
    class PerImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
            out = self.bn(torch.cat([p.flatten(1) for p in pictures], 1)[None, :, :, None])
            return [{"score": out.mean((0, 2, 3)) + p.mean()} for p in pictures]

    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randn(3, 4 + i % 3, 5, generator=generator) for i in range(24)]
    batches = [(pictures[i : i + 6], [{"boxes": i}] * 6) for i in range(0, 24, 6)]
    audit = measure_alone(PerImage(), batches, train_batch_size=3)
    assert audit.data is not None
    assert audit.data.samples == 24
    assert audit.network is not None
    assert audit.network.compared == 24
    assert audit.network.relative_rms is not None
    assert audit.layer("bn").count == sum(p[0].numel() for p in pictures)


def test_data_without_a_sample_are_an_error() -> None:
    x = torch.empty(0, 3, 8, 8)
    with pytest.raises(InputError, match="empty"):
        measure_alone(classifier(), TensorDataset(x))
    for nothing in ([], [x]):
        with pytest.raises((InputError, ModelError), match="no batch"):
            measure_alone(classifier(), nothing)


def test_empty_batches_in_between_are_passed_over() -> None:
    x, _ = images(64)
    plain = measure_alone(classifier(), list(x.split(32)))
    gaps = measure_alone(classifier(), [x[:32], x[:0], x[32:]])
    assert gaps.data is not None
    assert gaps.data.samples == 64
    assert [a.total_shift for a in gaps.audited] == [a.total_shift for a in plain.audited]


def test_a_model_that_cannot_take_the_data_is_told_the_shapes() -> None:
    with pytest.raises(ModelError, match=r"float32 \(8, 5, 8, 8\)"):
        measure_alone(classifier(), [torch.zeros(8, 5, 8, 8)])


def test_an_iterable_dataset_in_a_loader_is_read_to_its_end() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return zip(*images(70), strict=True)

    x, y = images(70)
    found = measure_alone(classifier(), DataLoader(Stream(), batch_size=16))
    same = measure_alone(classifier(), list(zip(x.split(16), y.split(16), strict=True)))
    assert [a.total_shift for a in found.audited] == [a.total_shift for a in same.audited]
    assert found.network == same.network


def test_a_dataset_is_loaded_by_workers_in_the_same_order() -> None:
    data = TensorDataset(*images(64))
    here, by_workers = (measure_alone(classifier(), data, workers=n) for n in (0, 2))
    assert untimed(by_workers) == untimed(here)


@pytest.mark.parametrize("bad", [{"samples": 0}, {"samples": -3}])
def test_a_number_of_samples_that_is_none_is_refused(bad: dict[str, int]) -> None:
    x, _ = images(64)
    for data in (TensorDataset(x), [x]):
        with pytest.raises(InputError, match="samples"):
            measure_alone(classifier(), data, **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"train_batch_size": 0}, {"batch_size": -1}])
def test_a_batch_size_that_is_none_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match="batch"):
        measure_alone(classifier(), TensorDataset(*images(64)), **bad)  # type: ignore[arg-type]


class PartlyUnreadable(Dataset[Any]):
    """Sample 0 cannot be read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 0:
            raise OSError("truncated file")
        x, y = images(40)
        return x[index], y[index]


def test_a_skipped_sample_in_the_first_batch_does_not_change_the_mini_batch_size() -> None:
    from bnaudit.engine.batches import default_forward
    from bnaudit.engine.conditions import Conditions
    from bnaudit.results import ModelInfo
    from bnaudit.targets.samples import Readable
    from bnaudit.verbs.bars import no_bar
    from bnaudit.verbs.measurement import measure_with
    from bnaudit.verbs.samples import MapReader

    for seed in range(3):
        reader = MapReader(Readable(PartlyUnreadable()), 8, None, seed, skip_bad=True)
        audit = measure_with(
            classifier(),
            reader,
            Conditions(default_forward, torch.device("cpu")),
            model_info=ModelInfo("model", 0, {}),
            data_source="data",
            attribute="none",
            progress=no_bar,
        )
        assert audit.data is not None
        assert audit.data.samples == 39
        assert len(audit.data.skipped) == 1
        assert audit.batch_statistics_size == 8


def test_the_size_of_a_batch_is_that_of_its_first_input() -> None:
    x = torch.zeros(5, 3)
    for batch in (x, (x, 1), [x], {"a": "text", "b": x}, ([x, x, x, x, x], None)):
        assert batch_size(batch) == 5
    with pytest.raises(InputError, match="how many samples"):
        batch_size("text")


def test_labels_are_found_where_they_usually_are() -> None:
    x, y = torch.zeros(4, 3), torch.arange(4)
    for batch in ((x, y), [x, y], {"x": x, "target": y}, {"labels": y}, (x, y.int()[:, None])):
        found = labels_of(batch)
        assert found is not None
        assert torch.equal(found, y)
    for batch in (x, (x,), (x, x), (x, "cat"), {"x": x}, (x, y > 1), (x, y.view(2, 2))):
        assert labels_of(batch) is None


def test_a_batch_is_cut_sample_by_sample_and_the_rest_passes_through() -> None:
    x, y, scalar = torch.arange(12.0).view(6, 2), torch.arange(6), torch.tensor(3.0)
    batch = {"x": [x, y], "boxes": [{"n": i} for i in range(6)], "scale": scalar, "text": "a"}
    cut = slice_batch(batch, 2, 5, 6)
    assert torch.equal(cut["x"][0], x[2:5])
    assert torch.equal(cut["x"][1], y[2:5])
    assert cut["boxes"] == [{"n": 2}, {"n": 3}, {"n": 4}]
    assert cut["scale"] is scalar
    assert cut["text"] == "a"
