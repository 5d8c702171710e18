"""What it costs that layers share their statistics between several calls in a forward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce

from bnaudit.engine.batches import Batch
from bnaudit.engine.call_sites import SeparateCalls, exact_by_call
from bnaudit.engine.conditions import ForwardError, OutOfMemoryError
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.lockstep import OutOfOrderError
from bnaudit.engine.population import Calibration, Population, Statistics
from bnaudit.engine.variants import Variant, variants_pass
from bnaudit.errors import NonFiniteError, one_line
from bnaudit.results.sharing import CallStatistics, SharedLayer, Sharing
from bnaudit.stats.moments import merge, pool
from bnaudit.verbs.domains_matrix import against
from bnaudit.verbs.exact_statistics import ExactStatistics
from bnaudit.verbs.figures import shift_estimates
from bnaudit.verbs.scores import scores_of
from bnaudit.verbs.workbench import Workbench

NOT_TRIED = "statistics for each call were not tried"


def shared_layers(found: Iterable[ExactStatistics]) -> list[BNLayer]:
    """The layers with new statistics that a forward calls several times."""
    return list(
        dict.fromkeys(
            layer for one in found for layer in one.statistics if one.calls.get(layer.name, 0) > 1
        )
    )


def sharing_of(
    bench: Workbench, found: ExactStatistics, verification: Iterable[Batch], samples: int | None
) -> Sharing | None:
    """Exact statistics for each call against `found`, exact statistics for all calls together.

    None where no layer is called several times. Inside `conditions.entered(model)`. A model whose
    batches do not make the same calls leaves a note, and so do data that memory does not hold.
    """
    if not shared_layers([found]):
        return None
    if found.plan.method != "exact":
        return Sharing(note=f"{NOT_TRIED}: they need the activations of all samples at once")
    subject, batches = bench.subject, found.plan.batches
    try:
        with bench.progress("statistics of each call", None, "calls") as advance:
            populations = exact_by_call(
                Calibration(
                    subject.model,
                    list(found.statistics),
                    batches,
                    batches.groups,
                    subject.conditions,
                    lambda layer, mean, var: (mean, var),
                    advance,
                )
            )
    except (OutOfOrderError, OutOfMemoryError, ForwardError, NonFiniteError) as error:
        return Sharing(note=f"{NOT_TRIED}: {one_line(error)}")
    several = {layer: seen for layer, seen in populations.items() if len(seen) > 1}
    variants = [Variant(found.statistics), _separate(populations, several)]
    with bench.progress("verifying: statistics of each call", samples, "samples") as advance:
        shared, separate = variants_pass(
            subject, verification, variants, task=bench.task, progress=advance
        )
    change = against("shared", shared, separate, bench.seed)
    return Sharing(
        tuple(_described(layer, seen) for layer, seen in several.items()),
        scores_of(shared),
        scores_of(separate),
        change.accuracy,
        change.loss,
        change.p_value,
    )


def _separate(
    populations: Mapping[BNLayer, Sequence[Population]],
    several: Mapping[BNLayer, Sequence[Population]],
) -> Variant:
    """Every call normalises by statistics of its own."""
    once: dict[BNLayer, Statistics] = {
        layer: seen[0].statistics
        for layer, seen in populations.items()
        if layer not in several and seen[0].statistics is not None
    }
    by_call = {layer: [one.statistics for one in seen] for layer, seen in several.items()}
    return Variant(once, SeparateCalls(by_call), list(several))


def _described(layer: BNLayer, seen: Sequence[Population]) -> SharedLayer:
    """What the statistics of all calls together are off by at each."""
    whole = pool(reduce(merge, [one.groups for one in seen]))
    shared = whole.mean[0], whole.var[0]
    calls = []
    for call, one in enumerate(seen):
        groups = one.groups.select(one.groups.count > 0)
        estimate = None
        if len(groups.count):
            estimate = shift_estimates(groups, shared, layer.eps or 0.0, layer.gamma())[0]
        calls.append(CallStatistics(call, int(groups.count.sum()), estimate))
    return SharedLayer(layer.name, tuple(calls))


def in_turn(parts: Iterable[Iterable[Batch]]) -> Iterator[Batch]:
    """The batches of one domain after the other."""
    for part in parts:
        yield from part
