"""The matrix: the statistics of each domain on the verification data of each domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import numpy as np
from torch import Tensor

from bnaudit.engine.batches import Batch, labels_of
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.engine.variants import Outcomes, Variant, variants_pass
from bnaudit.errors import BnauditError, InputError
from bnaudit.results import DataInfo
from bnaudit.results.domains import COMMON, Against, Cell
from bnaudit.stats.jackknife import MIN_GROUPS, jackknife
from bnaudit.stats.moments import leave_one_out, merge, pool, scatter
from bnaudit.stats.shift import channel_mean, squared_shift
from bnaudit.verbs.figures import describe_layer
from bnaudit.verbs.samples import Reader
from bnaudit.verbs.scores import loss_between, paired_outcomes, scores_of
from bnaudit.verbs.sources import Source, data_info
from bnaudit.verbs.verification import MOST_OVERLAP, Unseen
from bnaudit.verbs.workbench import Workbench

ByName = Mapping[str, Mapping[BNLayer, Statistics]]
"""The statistics to try, by whose they are; the checkpoint's, which come first, are empty."""


@dataclass(frozen=True)
class Column:
    """All statistics on the data of one domain; `classes`: how often each label occurs."""

    cells: tuple[Cell, ...]
    info: DataInfo
    overlap: int
    classifier: bool
    classes: Counter[int]


def column(
    bench: Workbench, name: str, source: Source, statistics: ByName, known: set[bytes]
) -> Column:
    """Every one of `statistics` on the samples of a domain that are not `known`, in one pass.

    Inside `conditions.entered(model)`. Raises `InputError` where most samples are known, or labels
    are none of the model's classes.
    """
    reader = source.reader
    unseen = Unseen(reader, known)
    classes: Counter[int] = Counter()
    variants = [Variant(one, observed=True) for one in statistics.values()]
    with (
        about_domain(name),
        bench.progress(f"verifying: {name}", reader.total, "samples") as advance,
    ):
        outcomes = variants_pass(
            bench.subject,
            _some(unseen, classes),
            variants,
            groups=reader.groups,
            task=bench.task,
            progress=advance,
        )
    found = dict(zip(statistics, outcomes, strict=True))
    first = outcomes[0]
    samples = len(first.took_part)
    _check_overlap(name, unseen.overlap, samples)
    cells = tuple(
        Cell(
            whose,
            name,
            scores_of(one),
            _layer_shift(bench, one.records, reader, samples),
            tuple(
                against(common, found[common], one, bench.seed)
                for common in COMMON
                if common in found and common != whose
            ),
        )
        for whose, one in found.items()
    )
    labelled = bool((~np.isnan(first.correct)).any())
    info = data_info(reader, source.name, samples, source.transform, labelled=labelled)
    classifier = bool((~np.isnan(first.agree)).any())
    return Column(cells, info, unseen.overlap, classifier, classes)


@contextmanager
def about_domain(name: str) -> Iterator[None]:
    """What goes wrong inside is said of this domain."""
    try:
        yield
    except BnauditError as error:
        error.args = (f"domain {name}: {error}", *error.args[1:])
        raise


def _some(unseen: Unseen, classes: Counter[int]) -> Iterator[Batch]:
    """The batches, their labels counted, with the fault named where nothing is left of them."""
    empty = True
    for batch in unseen:
        empty = False
        labels = labels_of(batch.data)
        if labels is not None:
            classes.update(labels.tolist())
        yield batch
    if empty:
        what = "gave no batch"
        if unseen.overlap:
            what = f"are all calibration samples of some domain ({unseen.overlap:,} samples)"
        raise InputError(f"its verification data {what}: give other data")


def _check_overlap(name: str, overlap: int, samples: int) -> None:
    read = samples + overlap
    if overlap > MOST_OVERLAP * read:
        raise InputError(
            f"domain {name}: {overlap:,} of {read:,} verification samples are calibration samples "
            "of some domain too: they prove nothing. Give domains that do not share their samples"
        )


def _layer_shift(
    bench: Workbench, records: dict[str, LayerRecord], reader: Reader, samples: int
) -> float | None:
    """The root mean square over layers of their debiased ESM."""
    final_groups = reader.final_groups(samples)
    squares = [
        _squared_esm(layer, records[layer.name], final_groups)
        for layer in bench.subject.layers
        if describe_layer(layer, records.get(layer.name)).status == "audited"
    ]
    mean = float(np.mean(squares)) if squares else float("nan")
    return mean**0.5 if np.isfinite(mean) else None


def _squared_esm(layer: BNLayer, record: LayerRecord, final_groups: Tensor) -> float:
    """D² of a layer, debiased where there are groups enough: the figure of `audit_layer` alone,
    for there is one for every layer of every cell."""
    parts = int(final_groups.max()) + 1
    groups = reduce(merge, [scatter(s.groups, final_groups, parts) for s in record.sites])
    groups = groups.select(groups.count > 0)
    whole, eps = pool(groups), layer.eps or 0.0
    squared = squared_shift(whole.mean[0], whole.var[0], *record.estimated, eps).total
    plain = float(channel_mean(squared))
    if len(groups.count) < MIN_GROUPS:
        return plain
    rest = leave_one_out(groups)
    without = squared_shift(rest.mean, rest.var, *record.estimated, eps).total
    known = jackknife(plain, channel_mean(without), groups.count)
    return plain if known is None else max(0.0, known.debiased)


def against(common: str, before: Outcomes, after: Outcomes, seed: int) -> Against:
    """One set of statistics against common ones, on the samples that both have outcomes of."""
    correct = paired_outcomes(before, after)
    if correct is None:
        return Against(common)
    return Against(
        common,
        correct.change,
        loss_between(before, after, seed),
        correct.only_before,
        correct.only_after,
        correct.p_value,
    )
