"""BN205: outputs that are not finite, while the activations of the BatchNorm layers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from audits import chain, codes, digits, digits_net, exactly_calibrated, gaussian
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results import Audit
from bnaudit.verbs.gate import gate

IMAGES, LABELS = digits("test")
X = gaussian(200, 32)
INF, NAN = float("inf"), float("nan")


def with_broken_head(value: float) -> nn.Module:
    """The healthy network with one weight of its classifier replaced."""
    net = digits_net("healthy")
    with torch.no_grad():
        net.classifier.weight[3, 0] = value
    return net


class Answers(nn.Module):
    """A healthy chain on `X`, and what a function makes of it as the output."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.answer = exactly_calibrated(chain(2), X), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.body(x))


def measured(model: nn.Module, *data: Tensor, **options: Any) -> Audit:
    return bnaudit.measure(model, TensorDataset(*data), attribute="none", **options)


def not_finite(answer: Callable[[Tensor], Any], **options: Any) -> int:
    audit = measured(Answers(answer), X, **options)
    assert audit.network is not None
    found = audit.network.not_finite
    assert ("BN205" in codes(audit)) == (found > 0)
    return found


def with_value(value: float, rows: int = 1, columns: int = 1) -> Callable[[Tensor], Tensor]:
    """The first `rows` of each batch get `value` in their first `columns`."""

    def answer(y: Tensor) -> Tensor:
        y = y.clone()
        y[:rows, :columns] = value
        return y

    return answer


@pytest.mark.parametrize("labels", [(), (LABELS,)])
def test_a_classifier_that_answers_nan_is_broken(labels: tuple[Tensor, ...]) -> None:
    audit = measured(with_broken_head(NAN), IMAGES, *labels)
    finding = codes(audit)["BN205"]
    assert finding.severity == "error"
    assert "497 of 497 samples" in finding.sentence
    assert audit.verdict is not None
    assert audit.verdict.level == "broken"
    assert "Healthy" not in audit.verdict.sentence
    assert not {"BN201", "BN202", "BN203"} & codes(audit).keys()
    assert gate(audit).outcome == "fail"


def test_nan_agrees_with_nothing_and_is_never_right() -> None:
    network = measured(with_broken_head(NAN), IMAGES, torch.full_like(LABELS, 3)).network
    assert network is not None
    assert network.agreement == 0
    assert network.deployed is not None
    assert network.deployed.accuracy == 0


def test_a_healthy_classifier_has_no_such_outputs() -> None:
    audit = measured(digits_net("healthy"), IMAGES, LABELS)
    assert audit.network is not None
    assert audit.network.not_finite == 0
    assert "BN205" not in codes(audit)


BATCHES = 7  # of 32, the last one of 8


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (with_value(NAN, rows=3), 3 * BATCHES),
        (with_value(INF, rows=2), 2 * BATCHES),
        (with_value(-INF, columns=32), BATCHES),
        (with_value(-INF), 0),  # a class that is excluded
        (with_value(1e30), 0),
        (lambda y: with_value(NAN)(y).half(), BATCHES),
    ],
)
def test_class_scores_that_give_no_class_are_counted(
    answer: Callable[[Tensor], Tensor], expected: int
) -> None:
    assert not_finite(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda y: [y, {"deep": (with_value(NAN, rows=2)(y),)}], 2 * BATCHES),
        (lambda y: with_value(NAN)(y).reshape(-1, 2, 4, 4), BATCHES),
        (lambda y: {"logits": y, "hidden": with_value(NAN)(y)}, BATCHES),
        (lambda y: torch.complex(y, with_value(NAN)(y))[:, None], BATCHES),
        (lambda y: with_value(NAN)(y)[:, 0], BATCHES),
        (lambda y: {"features": y[:, None], "loss": with_value(NAN)(y).mean()}, len(X)),
        (lambda y: with_value(INF)(y)[:, None], 0),
        (lambda y: {"features": y[:, None], "empty": y[:, :0], "count": torch.arange(3)}, 0),
        (lambda y: with_value(NAN)(y)[:4], len(X)),  # fewer rows: of which samples?
        (lambda y: y[:4], 0),
        (lambda y: "no tensor", 0),
    ],
)
def test_nan_in_other_outputs_is_counted_wherever_it_stands(
    answer: Callable[[Tensor], Any], expected: int
) -> None:
    assert not_finite(answer) == expected


def test_an_output_that_refers_to_itself_or_to_the_model_is_looked_at_once() -> None:
    class Output:
        def __init__(self, logits: Tensor, model: nn.Module) -> None:
            self.logits, self.model, self.own = logits, model, self

    head = nn.Linear(4, 4)
    nn.init.constant_(head.weight, NAN)
    assert not_finite(lambda y: Output(y, head)) == 0
    assert not_finite(lambda y: Output(with_value(NAN)(y), head)) == BATCHES


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_more_rows_than_samples_are_refused_with_what_to_do(task: Any) -> None:
    twice = Answers(lambda y: torch.cat([y, y]))
    with pytest.raises(InputError, match=r"64 outputs for a batch of 32 samples.*--forward"):
        measured(twice, X, task=task)
    assert measured(twice, X, task="other").network is not None


@pytest.mark.parametrize("labelled", [True, False])
def test_new_statistics_of_a_network_that_answers_nan_are_not_accepted(labelled: bool) -> None:
    net = with_broken_head(NAN)
    first = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    first.running_var *= 4  # what recalibration would mend
    heldout = TensorDataset(IMAGES, LABELS) if labelled else TensorDataset(IMAGES)
    found = bnaudit.recalibrate(net, TensorDataset(*digits("train")), verify=heldout)
    assert not found.decision.accept
    assert "497 of 497 samples are not finite" in found.decision.sentence
