"""New statistics tried on data that took no part in them: what sweeps share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from bnaudit.config import Settings
from bnaudit.config.defaults import SPLIT
from bnaudit.engine.batches import Batch
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.engine.variants import ESTIMATES, Outcomes, Variant, variants_pass
from bnaudit.errors import InputError
from bnaudit.results import DataInfo, LayerAudit
from bnaudit.results.scores import Figure
from bnaudit.stats.jackknife import MIN_GROUPS
from bnaudit.stats.roots import jackknife_root
from bnaudit.targets.transforms import build_transform
from bnaudit.verbs.prepare import open_other_data, reader_for
from bnaudit.verbs.sources import Source, data_info
from bnaudit.verbs.verification import MOST_OVERLAP, Unseen, layer_figures
from bnaudit.verbs.workbench import Data, RunOptions, Workbench, source_of

NewStatistics = Mapping[BNLayer, Statistics]


def held_out_sources(
    bench: Workbench,
    verify: Data | None,
    verify_split: float | None,
    verify_samples: int | None,
    options: RunOptions,
) -> tuple[Source, Source]:
    """(calibration, held-out data) from objects. Raises `InputError` for what excludes itself."""
    if verify is not None and verify_split is not None:
        raise InputError("give verify or verify_split, not both")
    if verify is None:
        return bench.data.split(SPLIT if verify_split is None else verify_split, verify_samples)
    wanted: RunOptions = {**options, "samples": verify_samples}
    return bench.data, source_of(verify, bench.subject.conditions, **wanted)


def held_out_of(bench: Workbench, settings: Settings) -> tuple[Source, Source]:
    """(calibration, held-out data) as the settings name them; else a share of the data.

    Raises `InputError` where the held-out data are the calibration data.
    """
    samples = None if settings.verify_samples == "all" else settings.verify_samples
    if settings.verify is None:
        share = SPLIT if settings.verify_split is None else settings.verify_split
        if settings.verify_split is None:
            bench.say(f"no --verify: {share:.0%} of the data are held out")
        return bench.data.split(share, samples)
    said = f"--verify {settings.verify}"
    if (settings.verify, settings.verify_arg) == (settings.data, settings.data_arg):
        raise InputError(
            f"{said}: these are the calibration data; give others, or leave --verify out: then a "
            "part of --data is held out (--verify-split)"
        )
    transform = build_transform(settings.transform)
    target = open_other_data("--verify", settings.verify, settings.verify_arg, transform)
    reader = reader_for(target, settings, bench.subject.conditions, samples, said)
    return bench.data, Source(reader, target.description, bench.data.transform)


@dataclass(frozen=True)
class Residual:
    """The ESM that is left on held-out data: of each layer by name, and over all of them.

    `sampling`: by how much the figure over the layers may be higher for the chance of the held-out
    samples, up to the upper limit of its 95% interval; None where these are too few to say.
    """

    by_layer: dict[str, float]
    sampling: float | None = None

    @property
    def over_layers(self) -> float | None:
        """The root mean square over the layers, in standard deviations; None without any."""
        values = np.array(list(self.by_layer.values()))
        return float(np.sqrt((values**2).mean())) if len(values) else None


@dataclass(frozen=True)
class Tried:
    """What came of the held-out samples: under the estimates, and under each new statistics.

    `residuals`: of each of these, debiased. `overlap`: samples left out because they are
    calibration samples too.
    """

    info: DataInfo
    estimates: Outcomes
    outcomes: list[Outcomes]
    residuals: list[Residual]
    layers: tuple[str, ...]
    overlap: int

    @property
    def labelled(self) -> bool:
        """Whether there is an accuracy."""
        return self.estimates.labelled

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the held-out data."""
        if not self.overlap:
            return []
        return [f"{self.overlap:,} held-out samples left out: they are calibration samples too"]


def try_statistics(
    bench: Workbench,
    source: Source,
    conditions: Sequence[NewStatistics],
    known: set[bytes],
    what: str,
) -> Tried:
    """One pass over the held-out data under the estimates and all `conditions`.

    `known`: hashes of the calibration samples, which take no part. Inside
    `conditions.entered(model)`. Raises `InputError` where there is nothing held out,
    `NonFiniteError` where new statistics give activations that are not finite.
    """
    subject, reader = bench.subject, source.reader
    unseen = Unseen(reader, known)
    groups = min(reader.groups, MIN_GROUPS)
    variants = [ESTIMATES, *(Variant(_placed(each), observed=True) for each in conditions)]
    with bench.progress(what, reader.total, "samples") as advance:
        estimates, *outcomes = variants_pass(
            subject,
            _FewGroups(unseen, reader.groups, groups, source.name),
            variants,
            groups=groups,
            task=bench.task,
            progress=advance,
        )
    samples = len(estimates.took_part)
    if unseen.overlap > MOST_OVERLAP * (samples + unseen.overlap):
        raise InputError(_known(unseen.overlap, samples + unseen.overlap))
    same = torch.arange(groups, device="cpu")
    figures = [layer_figures(subject.layers, one.records, same) for one in outcomes]
    residuals = [_residual(one) for one in figures]
    order = {name: record.order for one in outcomes[:1] for name, record in one.records.items()}
    layers = {name for one in residuals for name in one.by_layer}
    labelled = estimates.labelled
    return Tried(
        data_info(reader, source.name, samples, source.transform, labelled=labelled),
        estimates,
        outcomes,
        residuals,
        tuple(sorted(layers, key=lambda name: order.get(name, 0))),
        unseen.overlap,
    )


def _residual(figures: Mapping[str, LayerAudit]) -> Residual:
    found = {n: f.total_shift for n, f in figures.items() if f.total_shift is not None}
    plain = Residual({name: shift.value for name, shift in found.items()})
    left_out = [figures[name].left_out_squared_shift for name in found]
    value = plain.over_layers
    if value is None or len({len(each) for each in left_out}) > 1:
        return plain
    # layers see the same samples, so their mean is left out as one figure
    squared = float(np.mean([shift.plain**2 for shift in found.values()]))
    root = jackknife_root(squared, np.mean(left_out, axis=0))
    return plain if root is None else replace(plain, sampling=max(0.0, root.high - value))


def _placed(statistics: NewStatistics) -> NewStatistics:
    """Where the layers' own are, in their dtype: moved once, not for every batch."""
    return {
        layer: (
            mean.to(layer.estimated[0].dtype).to(layer.estimated[0].device),
            var.to(layer.estimated[1].dtype).to(layer.estimated[1].device),
        )
        for layer, (mean, var) in statistics.items()
    }


def residual_figure(residual: Residual) -> Figure | None:
    """Over the layers, without an interval; None where no layer has one."""
    value = residual.over_layers
    return Figure(value) if value is not None else None


def _known(overlap: int, read: int) -> str:
    return (
        f"{overlap:,} of {read:,} held-out samples are calibration samples too: they prove "
        "nothing. Give other data with --verify, or --verify-split to split --data"
    )


class _FewGroups:
    """The batches with their samples in fewer jackknife groups: many conditions are in memory."""

    def __init__(self, unseen: Unseen, groups: int, fewer: int, name: str) -> None:
        self._unseen, self._groups, self._fewer, self._name = unseen, groups, fewer, name

    def __iter__(self) -> Iterator[Batch]:
        some = False
        for batch in self._unseen:
            some = True
            yield Batch(batch.index, batch.data, batch.groups * self._fewer // self._groups)
        if not some:
            overlap = self._unseen.overlap
            if overlap:
                raise InputError(_known(overlap, overlap))
            raise InputError(f"{self._name}: the held-out data gave no batch")
