"""The case that remedies speak to: an Audit with its document, and sentences that cite it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bnaudit.findings.phrases import number
from bnaudit.results import Audit, LayerAudit, NetworkAudit, Score
from bnaudit.results.advice import Outcome, Sentence, value_at

GAIN = 0.005
"""Accuracy, 0 to 1, from which on a significant difference matters, as in BN203."""

CERTAIN = 2.0
"""Standard errors by which losses have to differ."""

NOISY = 0.25
"""Share of the layers' squared discrepancy from which on noise of the mini-batches is no detail: it
is then half as large as the discrepancy itself. Of the sample models of this repository, batches
hid what exact statistics gain at 0.29 to 0.70, and showed it at 0.20 and less."""


@dataclass(frozen=True)
class Cited:
    """A value of the document: where it stands, and how a sentence writes it."""

    path: str
    shown: str


def said(template: str, *silent: str, **cited: Cited) -> Sentence:
    """A sentence: `template` with the cited values in their places.

    `silent`: paths of what the sentence tells in words.
    """
    return Sentence(
        template.format(**{name: one.shown for name, one in cited.items()}),
        (*(one.path for one in cited.values()), *silent),
        (*(one.shown for one in cited.values()), *("" for _ in silent)),
    )


def percent(value: float) -> str:
    """`81.0%`."""
    return f"{value:.1%}"


def count(value: int) -> str:
    """`2,048`."""
    return f"{value:,}"


def nats(value: float) -> str:
    """`0.884`."""
    return f"{value:.3f}"


class Case:
    """An Audit and what remedies ask of it. Values are cited from its document by path."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._document = json.loads(audit.to_json())

    def cite(self, path: str, form: Callable[[Any], str] = str) -> Cited:
        """The value at a path, written by `form`, a dash where it is null. KeyError for no path."""
        value = value_at(self._document, path)
        return Cited(path, "–" if value is None else form(value))

    def layer(self, layer: LayerAudit, field: str, form: Callable[[Any], str] = number) -> Cited:
        """A value of a layer, such as `output_shift.value`."""
        return self.cite(f"layers[{self.audit.layers.index(layer)}].{field}", form)

    def has(self, *codes: str) -> bool:
        """Whether one of these findings is there."""
        return any(finding.code in codes for finding in self.audit.findings)

    def quoted(self, *codes: str) -> tuple[Sentence, ...]:
        """The sentences of these findings, as the Audit tells them."""
        return tuple(
            said(
                "{code}: {sentence}",
                code=self.cite(f"findings[{i}].code"),
                sentence=self.cite(f"findings[{i}].sentence"),
            )
            for i, finding in enumerate(self.audit.findings)
            if finding.code in codes
        )

    def instructions(self, *codes: str) -> tuple[Sentence, ...]:
        """The sentences of these findings, each with what it tells to do."""
        return tuple(
            said(
                "{code}: {sentence} {remedy}",
                code=self.cite(f"findings[{i}].code"),
                sentence=self.cite(f"findings[{i}].sentence"),
                remedy=self.cite(f"findings[{i}].remedy"),
            )
            for i, finding in enumerate(self.audit.findings)
            if finding.code in codes
        )

    @cached_property
    def scored(self) -> NetworkAudit | None:
        """The network's figures where both conditions are scored on the same labelled samples."""
        network = self.audit.network
        if network is None or network.deployed_compared is None:
            return None
        return network if network.batch_statistics is not None else None

    @cached_property
    def outcome(self) -> Outcome:
        """What the measured figures say of normalising by the data's own statistics.

        Better: significantly more accurate (McNemar's exact test at 5%, and `GAIN`) and a loss that
        is not higher by more than `CERTAIN` standard errors, or a loss lower by more than that and
        no significantly lower accuracy. Divided: significantly more accurate with a loss higher by
        more than that. Open: not scored, or `hidden_by_noise`.
        """
        return "open" if self.scored is None or self.hidden_by_noise else self._by_scores

    @cached_property
    def _by_scores(self) -> Outcome:
        """What the scores say, whatever they come from."""
        if self.scored is None:
            return "open"
        accuracy, loss = self._accuracy_gain(self.scored), self._loss_gain(self.scored)
        if accuracy > 0:
            return "divided" if loss < -1 else "better"
        return "better" if accuracy == 0 and loss > 1 else "no better"

    @cached_property
    def hidden_by_noise(self) -> bool:
        """Whether the scores do not speak for the data's statistics, but could not be expected to.

        The mini-batches' own noise, which exact statistics have not, costs accuracy and loss.
        """
        return self._by_scores in ("no better", "divided") and self.noise_matters

    @cached_property
    def may_be_better(self) -> bool:
        """Whether accuracy or loss are better by the data's statistics, within what is chance."""
        if self.scored is None or self.outcome != "no better":
            return False
        deployed, other = _both(self.scored)
        return other.accuracy > deployed.accuracy or self._loss_gain(self.scored) > 0

    def _accuracy_gain(self, network: NetworkAudit) -> int:
        """1 where it is significantly higher by the data's statistics, -1 where lower, else 0."""
        only_deployed, only_batch = network.only_deployed_correct, network.only_batch_correct
        if only_deployed is None or only_batch is None:
            return 0
        from bnaudit.stats.paired import mcnemar

        deployed, other = _both(network)
        gain = other.accuracy - deployed.accuracy
        if mcnemar(only_deployed, only_batch) >= 0.05:
            return 0
        return int(gain >= GAIN) - int(gain < 0)

    def _loss_gain(self, network: NetworkAudit) -> float:
        """How much lower the loss is by the data's statistics, in `CERTAIN` standard errors."""
        deployed, other = _both(network)
        if deployed.loss is None or other.loss is None:  # not finite
            if (deployed.loss is None) == (other.loss is None):
                return 0.0
            return math.inf if deployed.loss is None else -math.inf
        errors = (deployed.loss_standard_error or 0.0, other.loss_standard_error or 0.0)
        noise = CERTAIN * math.hypot(*errors)
        gain = deployed.loss - other.loss
        return gain / noise if noise else math.copysign(1.0, gain) if gain else 0.0

    @cached_property
    def most_shifted(self) -> LayerAudit | None:
        """The layer of largest output shift."""
        layers = [layer for layer in self.audit.audited if layer.output_shift is not None]
        return max(layers, key=_output_shift, default=None)

    @cached_property
    def noisiest(self) -> LayerAudit | None:
        """The layer of most batch noise."""
        layers = [layer for layer in self.audit.audited if layer.batch_noise is not None]
        return max(layers, key=lambda layer: layer.batch_noise or 0.0, default=None)

    @cached_property
    def noise_matters(self) -> bool:
        """Whether more than `NOISY` of the layers' squared discrepancy is noise of the batches."""
        layers = [layer for layer in self.audit.audited if layer.discrepancy and layer.batch_noise]
        noise = sum((layer.batch_noise or 0.0) ** 2 for layer in layers)
        return noise > NOISY * sum((layer.discrepancy or 0.0) ** 2 for layer in layers)

    def scores(self) -> tuple[Sentence, ...]:
        """How the network scores as deployed and by the statistics of mini-batches of the data."""
        network = self.scored
        if network is None:
            return ()
        deployed, other = "network.deployed_compared", "network.batch_statistics"
        sentences = [
            said(
                "On the same {n} labelled samples top-1 accuracy is {deployed} as deployed and "
                "{other} by the statistics of mini-batches of {size} of these data.",
                n=self.cite(f"{deployed}.samples", count),
                deployed=self.cite(f"{deployed}.accuracy", percent),
                other=self.cite(f"{other}.accuracy", percent),
                size=self.cite("network.batch_size", count),
            )
        ]
        if network.only_deployed_correct is not None and network.only_batch_correct is not None:
            sentences.append(
                said(
                    "Samples that are right only as deployed: {a}; only by the mini-batches' "
                    "statistics: {b}.",
                    a=self.cite("network.only_deployed_correct", count),
                    b=self.cite("network.only_batch_correct", count),
                )
            )
        scores = (network.deployed_compared, network.batch_statistics)
        if all(score is not None and score.loss is not None for score in scores):
            sentences.append(
                said(
                    "The loss is {deployed} nats as deployed and {other} by theirs.",
                    deployed=self.cite(f"{deployed}.loss", nats),
                    other=self.cite(f"{other}.loss", nats),
                )
            )
        return tuple(sentences)

    def largest_shift(self) -> tuple[Sentence, ...]:
        """The largest output shift and its layer."""
        worst = self.most_shifted
        if worst is None:
            return ()
        figures = {
            "shift": self.layer(worst, "output_shift.value"),
            "name": self.layer(worst, "name", str),
        }
        estimate = worst.output_shift
        if estimate is None or estimate.low is None or estimate.high is None:
            text = "The largest output shift is {shift} standard deviations, in layer {name}."
            return (said(text, **figures),)
        return (
            said(
                "The largest output shift is {shift} standard deviations (95% interval {low} to "
                "{high}), in layer {name}.",
                **figures,
                low=self.layer(worst, "output_shift.low"),
                high=self.layer(worst, "output_shift.high"),
            ),
        )

    def most_noise(self) -> tuple[Sentence, ...]:
        """The largest batch noise, its layer and the size of the mini-batches."""
        layer = self.noisiest
        if layer is None or self.audit.batch_statistics_size is None:
            return ()
        return (
            said(
                "Statistics of mini-batches of {size} differ from one batch to the next by up to "
                "{noise} standard deviations (layer {name}), which no estimates remove.",
                size=self.cite("batch_statistics_size", count),
                noise=self.layer(layer, "batch_noise"),
                name=self.layer(layer, "name", str),
            ),
        )


def _both(network: NetworkAudit) -> tuple[Score, Score]:
    """As deployed and by mini-batches' statistics, of a network where both are scored."""
    deployed, other = network.deployed_compared, network.batch_statistics
    assert deployed is not None
    assert other is not None
    return deployed, other


def _output_shift(layer: LayerAudit) -> float:
    return layer.output_shift.value if layer.output_shift is not None else 0.0
