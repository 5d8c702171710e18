"""What `num_batches_tracked` gives away: BN005 and BN009 to BN011."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from bnaudit.findings.phrases import among, plural, recalibrate_command, upper_first, which_layers
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.rules.never_estimated import is_initial
from bnaudit.results.state import State


@rule(
    "BN005",
    "no-batches-counted",
    "info",
    State,
    means="Statistics that were estimated stand beside a count of 0 batches, or beside none.",
    computed="`num_batches_tracked` is 0 or not stored, and the layer is not at mean 0, variance "
    "1.",
    matters="Not a fault by itself: checkpoints older than PyTorch 0.4.1 and frozen layers have "
    "no count, and loading one leaves it at 0. What depends on the count cannot be judged then, "
    "and with `momentum=None` (cumulative average) the next training batch would replace the "
    "statistics: its weight is 1/(count + 1).",
    remedy="Nothing, unless the model uses momentum=None: then set the counts before training on.",
    source="PyTorch, torch.nn.modules.batchnorm (state-dict version 2 added the counter)",
)
def no_batches_counted(state: State, limits: Limits) -> Iterator[Found]:
    """No count beside statistics that are not the initial ones."""
    estimated = [layer for layer in state.layers if layer.channels and not is_initial(layer)]
    absent = tuple(layer.name for layer in estimated if layer.num_batches_tracked is None)
    zero = tuple(layer.name for layer in estimated if layer.num_batches_tracked == 0)
    for names, what in ((absent, "no count of batches"), (zero, "a count of 0 batches")):
        if names:
            verb = "has" if len(names) == 1 else "have"
            where = which_layers(names, len(state.layers))
            yield Found(
                upper_first(f"{where} {verb} {what} beside statistics that were estimated."),
                layers=names,
                evidence={"layers": len(names), "stored": names is zero},
            )


@dataclass(frozen=True)
class _Group:
    """Layers with one count, in stored order; `ratio` is to the usual count."""

    count: float
    ratio: float
    layers: tuple[str, ...]

    @property
    def explained(self) -> str | None:
        """What a count that is exactly 2, 3, … times the usual one, or half of it, tells."""
        if self.ratio == 0.5:
            return "half of the usual: the others were called, or run, twice for each call of these"
        if self.ratio < 2 or self.ratio != round(self.ratio):
            return None
        if self.ratio == 2:
            return (
                "twice the usual: called twice a forward, or run again by activation checkpointing"
            )
        return f"{self.ratio:.0f} times the usual: called so often a forward"


@rule(
    "BN009",
    "counts-differ",
    "warning",
    State,
    means="The layers have counted different numbers of batches.",
    computed="`num_batches_tracked` above 0, by layer, against the commonest count (the larger of "
    "two that are equally common). Exactly 2, 3, … times that, or half of it, is information "
    "only: activation checkpointing runs a forward twice, and a layer that is called k times a "
    "forward counts k. So is one change at one depth: where the layers behind it counted fewer, "
    "they are new ones behind pretrained ones; where the layers in front did, those were frozen "
    "for a while, or put in front of pretrained ones.",
    matters="Layers that some forwards skip, that were frozen for a while, added later or reset "
    "follow the data with different memories. A layer that is updated twice a step forgets twice "
    "as fast: its momentum is in effect `1 − (1 − momentum)²`.",
    remedy="Recalibrate where layers were skipped. Under activation checkpointing, set the "
    "momentum of the doubled layers to 1 − √(1 − momentum).",
    source="pytorch issue 96136",
)
def counts_differ(state: State, limits: Limits) -> Iterator[Found]:
    """Layers whose counts are not the commonest one."""
    counts = _counts(state)
    if len(set(counts.values())) < 2:
        return
    usual = _usual(counts)
    groups = [
        _Group(count, count / usual, tuple(name for name in counts if counts[name] == count))
        for count in sorted(set(counts.values()))
        if count != usual
    ]
    others = [group for group in groups if not group.explained]
    for group in groups:
        if not group.explained:
            continue
        where = which_layers(group.layers, len(state.layers))
        count = f"{where} counted {group.count:,.6g} batches, the others {usual:,.6g}"
        yield Found(
            upper_first(f"{count}; {group.explained}."),
            layers=group.layers,
            evidence={"usual": usual, "count": group.count, "ratio": group.ratio},
            severity="info",
        )
    if others:
        names = tuple(name for group in others for name in group.layers)
        low, high = others[0].count, others[-1].count
        span = f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}"
        at_one_depth = len(others) == 1 and _changes(counts) == 1
        why = (
            _one_change(counts)
            if at_one_depth
            else "skipped by some forwards, frozen for a while, added later or reset"
        )
        where = which_layers(names, len(state.layers))
        yield Found(
            upper_first(f"{where} counted {span} batches, the others {usual:,.6g}: {why}."),
            layers=names,
            evidence={"usual": usual, "counts": {name: counts[name] for name in names}},
            severity="info" if at_one_depth else None,
            remedy="Nothing where that was meant." if at_one_depth else None,
        )


@rule(
    "BN010",
    "counts-not-integers",
    "warning",
    State,
    means="Counts of batches are not integers: the buffers are averages of several checkpoints.",
    computed="`num_batches_tracked ≠ round(num_batches_tracked)`. Averages that are stored as "
    "integers, as AveragedModel(use_buffers=True) does, cannot be told by this.",
    matters="The statistics of averaged weights are not the average of the statistics. The "
    "activations of averaged weights vary less, the more so with depth, and averaged buffers "
    "cannot know.",
    remedy="Recalibrate with the averaged weights, and verify: it sometimes hurts.",
    source="pytorch issue 49082, timgaripov/swa issue 8, Lightning issue 14866",
)
def counts_not_integers(state: State, limits: Limits) -> Iterator[Found]:
    """Averaged counts."""
    broken = {
        layer.name: float(count)
        for layer in state.layers
        if (count := layer.num_batches_tracked) is not None
        and math.isfinite(count)
        and count != round(count)
    }
    if broken:
        first = next(iter(broken))
        where = which_layers(tuple(broken), len(state.layers))
        verb = "counts" if len(broken) == 1 else "count"
        yield Found(
            upper_first(
                f"{where} {verb} a fraction of a batch ({broken[first]:,.8g}"
                f"{among(first, broken)}): the buffers were averaged."
            ),
            layers=tuple(broken),
            evidence={"counts": broken},
            command=recalibrate_command(state),
        )


@rule(
    "BN011",
    "counts-exceed-steps",
    "info",
    State,
    means="The layers counted more batches than the optimiser made steps.",
    computed="The commonest `num_batches_tracked` divided by the steps that the optimiser's state "
    "speaks of.",
    matters="With gradient accumulation each micro-batch is normalised by itself: the batch that "
    "counts for BatchNorm is the micro-batch, however large the step is. Several forwards a step, "
    "or activation checkpointing, count alike, and make the moving average forget faster. An "
    "optimiser that was started anew in the middle of a run shows the same ratio and means "
    "nothing.",
    remedy="Give bnaudit measure the size of a micro-batch (--train-batch-size); where the batch "
    "noise at that size is large, use larger micro-batches or a batch-free norm.",
    source="pytorch issue 46516, yolov5 issue 1630; Wu 2021 (arXiv:2105.07576), section 4",
    thresholds=(
        Threshold(
            "ratio",
            1.5,
            "Batches counted for each step of the optimiser. Half-way between 1, which is usual, "
            "and 2, the least that accumulation gives.",
        ),
    ),
)
def counts_exceed_steps(state: State, limits: Limits) -> Iterator[Found]:
    """More batches than steps."""
    counts = _counts(state)
    if not counts or not state.steps or state.steps < 1:
        return
    usual = _usual(counts)
    ratio = usual / state.steps
    if ratio >= limits["ratio"]:
        yield Found(
            f"BatchNorm counted {usual:,.0f} batches in {plural(state.steps, 'optimiser step')}, "
            f"{ratio:.3g} a step: gradient accumulation, several forwards a step, or an optimiser "
            "that was started anew.",
            evidence={"batches": usual, "steps": state.steps, "ratio": ratio},
        )


def _counts(state: State) -> dict[str, float]:
    """The counts above 0, by layer."""
    return {
        layer.name: float(layer.num_batches_tracked)
        for layer in state.layers
        if layer.num_batches_tracked
        and layer.num_batches_tracked > 0
        and math.isfinite(layer.num_batches_tracked)
    }


def _usual(counts: dict[str, float]) -> float:
    """The commonest count, the larger of two that are equally common."""
    return max(Counter(counts.values()).items(), key=lambda item: (item[1], item[0]))[0]


def _one_change(counts: dict[str, float]) -> str:
    """What one change of the count by depth tells."""
    first, *_, last = counts.values()
    if last < first:
        how = "as new layers behind pretrained ones leave it"
    else:
        how = "as layers in front leave it that were frozen for a while, or added later"
    return f"one change of the count by depth, {how}"


def _changes(counts: dict[str, float]) -> int:
    """How often the count changes from a layer to the next."""
    values = list(counts.values())
    return sum(a != b for a, b in pairwise(values))


@rule(
    "BN021",
    "averaged-weights",
    "info",
    State,
    means="The file says that its weights are an average of several: their statistics have to be "
    "estimated anew.",
    computed="`n_averaged`, which torch's AveragedModel keeps beside the weights, is above 1.",
    matters="The statistics of a last checkpoint, or their average, do not belong to averaged "
    "weights. torch leaves them to the user (update_bn); whether that was done the file does not "
    "tell, measuring does.",
    remedy="Measure on data; recalibrate where the statistics do not fit.",
    source="PyTorch issue 49082; timgaripov/swa issue 8",
)
def averaged_weights(state: State, limits: Limits) -> Iterator[Found]:
    """A count of averaged models."""
    if state.averaged is not None and state.averaged > 1 and state.layers:
        yield Found(
            f"The weights are an average of {state.averaged:,.6g} (n_averaged); whether the "
            "statistics were estimated for it the file does not tell.",
            evidence={"n_averaged": state.averaged},
            command=recalibrate_command(state),
        )
