"""Comparing a network's outputs under two conditions, batch by batch, without keeping them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bnaudit.engine.not_finite import outputs_not_finite, scores_not_finite
from bnaudit.engine.output_parts import class_scores, output_parts
from bnaudit.engine.ranks import Ranks
from bnaudit.errors import InputError
from bnaudit.results import Marks, NetworkAudit, Score
from bnaudit.stats.outputs import (
    classification_sums,
    label_sums,
    paired_correct_sums,
    same_top_one,
    squared_difference_sums,
    top_one_right,
)

Task = Literal["auto", "classification", "other"]
Compare = Callable[[Any, Any], float | Mapping[str, float]]


class OutputComparison:
    """Accumulates the figures of a `NetworkAudit`.

    Sums stay on the device until `result`: nothing waits for a batch. With task "auto" the first
    output decides: class scores (N, K) make it a classification, unless the labels are none.
    """

    def __init__(self, task: Task, batch_size: int | None, compare: Compare | None = None) -> None:
        self._task = task
        self._batch_size = batch_size
        self._compare = compare
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._custom: dict[str, float] = {}
        self._not_comparable: dict[str, None] = {}
        self._checks: list[tuple[Tensor, int]] = []
        self._comparable_parts = 0
        self._correct: list[tuple[int, Tensor | None]] = []
        self._agreed: list[tuple[int, Tensor | None]] = []

    def deployed(self, output: Any, labels: Tensor | None, samples: int, batch: int = 0) -> None:
        """Score one batch of deployed outputs, the one with number `batch`."""
        logits = self._logits_of(output, samples)
        self._count_not_finite("not_finite", output, logits, samples)
        if logits is not None and labels is not None:
            labels = self._checked(labels, logits)
            self._add("deployed", label_sums(logits, labels), len(labels))
            self._correct.append((batch, top_one_right(logits, labels)))
        else:
            self._correct.append((batch, None))

    def pair(
        self, deployed: Any, other: Any, labels: Tensor | None, samples: int, batch: int = 0
    ) -> None:
        """Compare the outputs of one mini-batch, a part of `batch`, under both conditions."""
        self._counts["compared"] = self._counts.get("compared", 0) + samples
        if self._compare is not None:
            self._add_custom(self._compare(deployed, other), samples)
        a, b = self._logits_of(deployed, samples), self._logits_of(other, samples)
        self._count_not_finite("other_not_finite", other, b, samples)
        if a is not None and b is not None:
            self._add("classification", classification_sums(a, b), samples)
            self._agreed.append((batch, same_top_one(a, b)))
            if labels is not None:
                labels = self._checked(labels, a)
                self._add("deployed_compared", label_sums(a, labels), samples)
                self._add("batch_statistics", label_sums(b, labels), samples)
                self._add("discordant", paired_correct_sums(a, b, labels), samples)
            return
        self._agreed.append((batch, None))
        self._compare_parts(output_parts("output", deployed), output_parts("output", other))

    def together(self, ranks: Ranks) -> None:
        """From here on the account of all ranks. Waits for the device."""
        if ranks.size == 1:
            return
        self._settle_labels()
        shares = ranks.gather(
            _Share(
                {name: sums.cpu().double() for name, sums in self._sums.items()},
                self._counts,
                self._custom,
                self._not_comparable,
                self._comparable_parts,
                _on_cpu(self._correct),
                _on_cpu(self._agreed),
            )
        )
        self._sums, self._counts, self._custom, self._not_comparable = {}, {}, {}, {}
        for share in shares:
            for name, sums in share.sums.items():
                self._sums[name] = self._sums[name] + sums if name in self._sums else sums
            for name, count in share.counts.items():
                self._counts[name] = self._counts.get(name, 0) + count
            for name, value in share.custom.items():
                self._custom[name] = self._custom.get(name, 0.0) + value
            self._not_comparable |= share.not_comparable
        self._comparable_parts = sum(share.comparable_parts for share in shares)
        self._correct = sorted((m for s in shares for m in s.correct), key=lambda m: m[0])
        self._agreed = sorted((m for s in shares for m in s.agreed), key=lambda m: m[0])

    def result(self, kept_estimates: tuple[str, ...]) -> NetworkAudit:
        """The figures. Waits for the device."""
        classification = "classification" in self._sums or "deployed" in self._sums
        self._settle_labels()
        agreement = self._mean("classification")
        discordant = self._sums.get("discordant")
        note = None
        if not self._counts.get("compared"):
            note = f"fewer samples than one mini-batch of {self._batch_size}: nothing to compare"
        elif not classification and not self._comparable_parts and not self._custom:
            note = "the outputs are not comparable: give --compare file.py:function"
        return NetworkAudit(
            task="classification" if classification else "other",
            batch_size=self._batch_size,
            compared=self._counts.get("compared", 0),
            deployed=self._score("deployed"),
            deployed_compared=self._score("deployed_compared"),
            batch_statistics=self._score("batch_statistics"),
            only_deployed_correct=int(discordant[0]) if discordant is not None else None,
            only_batch_correct=int(discordant[1]) if discordant is not None else None,
            agreement=agreement[0] if agreement else None,
            kl=_finite(agreement[1]) if agreement else None,
            relative_rms=self._relative_rms(),
            not_comparable=tuple(self._not_comparable),
            custom={k: _finite(v / self._counts["compared"]) for k, v in self._custom.items()},
            kept_estimates=kept_estimates,
            note=note,
            correct=_marks(self._correct),
            agreed=_marks(self._agreed),
            not_finite=self._count("not_finite"),
        )

    def other_not_finite(self) -> int:
        """The compared samples whose other output is not finite. Waits for the device."""
        return self._count("other_not_finite")

    def logits(self, output: Any) -> Tensor | None:
        """The class scores of an output; None where it, or the task, has none."""
        if self._task == "other":
            return None
        logits = class_scores(output)
        if logits is None and self._task == "classification":
            raise InputError(
                "--task classification: the model's output is not a tensor of class scores (N, K); "
                "use --task other, or let --forward return the scores"
            )
        return logits

    def _logits_of(self, output: Any, samples: int) -> Tensor | None:
        """The class scores, at most one row a sample."""
        logits = self.logits(output)
        if logits is not None and len(logits) > samples:
            raise InputError(
                f"the model gives {len(logits)} outputs for a batch of {samples} samples: give "
                "--forward to match them, or --task other"
            )
        return logits

    def _count_not_finite(
        self, name: str, output: Any, logits: Tensor | None, samples: int
    ) -> None:
        if logits is not None and len(logits) < samples:
            logits = None  # which sample a row is of is not known
        parts = output_parts("output", output).values()
        found = outputs_not_finite((part for part in parts if part is not logits), samples)
        if logits is not None:
            scores = scores_not_finite(logits)
            found = scores if found is None else scores | found.to(scores.device)
        if found is not None:
            self._add(name, found.sum(), samples)

    def _count(self, name: str) -> int:
        return int(self._sums[name]) if name in self._sums else 0

    def _checked(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Labels on the logits' device; their range is checked without waiting for it."""
        if len(labels) != len(logits):
            raise InputError(
                f"the model gives {len(logits)} outputs for a batch of {len(labels)} labels: give "
                "--forward to match them, or --task other"
            )
        labels = labels.to(logits.device)
        classes = logits.shape[1]
        if labels.device.type == "cpu":
            _check_range(int(labels.min()), int(labels.max()), classes)
            return labels
        self._checks.append((torch.stack([labels.min(), labels.max()]), classes))
        return labels.clamp(0, classes - 1)

    def _settle_labels(self) -> None:
        for extremes, classes in self._checks:
            low, high = extremes.tolist()
            _check_range(low, high, classes)
        self._checks.clear()

    def _compare_parts(self, a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
        for name in a.keys() | b.keys():
            x, y = a.get(name), b.get(name)
            if x is None or y is None or x.shape != y.shape:
                self._not_comparable[name] = None
            elif x.is_floating_point():
                self._comparable_parts += 1
                self._add("squares", squared_difference_sums(x, y), 0)

    def _add(self, name: str, sums: Tensor, samples: int) -> None:
        wide = sums if sums.device.type == "mps" else sums.double()  # MPS has no float64
        self._sums[name] = self._sums[name] + wide if name in self._sums else wide
        self._counts[name] = self._counts.get(name, 0) + samples

    def _add_custom(self, figures: float | Mapping[str, float], samples: int) -> None:
        named = figures if isinstance(figures, Mapping) else {"compare": figures}
        for name, value in named.items():
            self._custom[name] = self._custom.get(name, 0.0) + float(value) * samples

    def _mean(self, name: str) -> list[float] | None:
        if name not in self._sums or not self._counts[name]:
            return None
        means: list[float] = (self._sums[name] / self._counts[name]).tolist()
        return means

    def _score(self, name: str) -> Score | None:
        means = self._mean(name)
        if means is None:
            return None
        n, (accuracy, loss, square) = self._counts[name], means
        return Score(n, accuracy, _finite(loss), _standard_error(loss, square, n))

    def _relative_rms(self) -> float | None:
        if "squares" not in self._sums:
            return None
        difference, reference = self._sums["squares"].tolist()
        return _finite(math.sqrt(difference / reference)) if reference > 0 else None


@dataclass(frozen=True)
class _Share:
    """What one rank has summed up; the marks with the numbers of their batches."""

    sums: dict[str, Tensor]
    counts: dict[str, int]
    custom: dict[str, float]
    not_comparable: dict[str, None]
    comparable_parts: int
    correct: list[tuple[int, Tensor | None]]
    agreed: list[tuple[int, Tensor | None]]


def _on_cpu(marks: list[tuple[int, Tensor | None]]) -> list[tuple[int, Tensor | None]]:
    return [(batch, one.cpu() if one is not None else None) for batch, one in marks]


def _finite(value: float) -> float | None:
    """Not a number and infinity are no figures."""
    return value if math.isfinite(value) else None


def _standard_error(mean: float, mean_square: float, n: int) -> float | None:
    """Of a mean over n samples."""
    if n < 2:
        return None
    return _finite(math.sqrt(max(0.0, mean_square - mean**2) / (n - 1)))


def _marks(of_batches: list[tuple[int, Tensor | None]]) -> Marks | None:
    """The marks of all samples; None where some batches have none. Waits for the device."""
    known = [marks for _, marks in of_batches if marks is not None]
    if not known or len(known) < len(of_batches):
        return None
    return Marks.of(torch.cat(known).cpu().numpy())


def _check_range(low: int, high: int, classes: int) -> None:
    if low < 0 or high >= classes:
        raise InputError(
            f"the labels run from {low} to {high}, the model has {classes} outputs (classes 0 to "
            f"{classes - 1}): check the data and --model, or use --task other"
        )
