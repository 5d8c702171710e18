"""The verification: the network before and after, on data that took no part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from bnaudit.engine.batches import Batch, content_hashes, select_samples
from bnaudit.engine.books import LayerRecord
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.outputs import Task
from bnaudit.engine.paired import paired_pass
from bnaudit.engine.population import Statistics
from bnaudit.errors import InputError
from bnaudit.findings.shift_change import largest_shift_change, layer_shift_change
from bnaudit.results import Audit, Change, LayerAudit, ModelInfo, Share, Verification
from bnaudit.stats.paired import mean_change, share
from bnaudit.verbs.figures import audit_layer, describe_layer
from bnaudit.verbs.samples import Reader
from bnaudit.verbs.scores import paired_accuracy
from bnaudit.verbs.sources import Source, data_info

MOST_OVERLAP = 0.5
"""Beyond this share of known samples the verification data are the calibration data."""


@dataclass
class Unseen:
    """The batches of a reader without the samples whose content is among `known`."""

    reader: Reader
    known: set[bytes]
    overlap: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Batch]:
        """Batches of which nothing is left are passed over."""
        for batch in self.reader:
            hashes = content_hashes(batch) if self.known else []
            keep = [i for i, one in enumerate(hashes) if one not in self.known]
            if len(keep) == len(hashes):
                yield batch
                continue
            self.overlap += batch.size - len(keep)
            if keep:
                data = select_samples(batch.data, keep, batch.size)
                yield replace(batch, data=data, groups=batch.groups[keep])


@dataclass(frozen=True)
class Verified:
    """The verification, with the layers' figures before and after by name."""

    verification: Verification
    before: dict[str, LayerAudit]
    after: dict[str, LayerAudit]

    @property
    def sides(self) -> tuple[dict[str, LayerAudit], dict[str, LayerAudit]]:
        """(before, after)."""
        return self.before, self.after


def verify_with(
    subject: Subject,
    source: Source,
    statistics: dict[BNLayer, Statistics],
    known: set[bytes],
    *,
    max_loss: float,
    task: Task,
    progress: Callable[[int], None],
) -> Verified:
    """Compare the estimates with `statistics` on every sample that is not `known`.

    Raises `InputError` where most samples are known. Inside `conditions.entered(model)`.
    """
    reader, seed = source.reader, subject.conditions.seed
    ranks = subject.conditions.ranks
    unseen = Unseen(reader, known)
    with ranks.as_one():
        seen = paired_pass(
            subject,
            unseen,
            reader.groups,
            statistics,
            task=task,
            progress=ranks.shared(progress),
        )
    overlap = sum(ranks.gather(unseen.overlap))
    read = seen.samples + overlap
    if read == 0:
        raise InputError("the verification data gave no batch")
    if overlap > MOST_OVERLAP * read:
        raise InputError(
            f"{overlap:,} of {read:,} verification samples are calibration samples too: "
            "they prove nothing. Give other data with --verify, or --verify-split to split --data"
        )
    before, after = (
        layer_figures(subject.layers, records, reader.final_groups(seen.samples))
        for records in (seen.before, seen.after)
    )
    outputs, network = seen.outputs, seen.comparison.result(())
    audits = _audit(before), _audit(after)
    labelled = outputs.correct is not None
    correct = paired_accuracy(*outputs.correct) if outputs.correct is not None else None
    verification = Verification(
        data=data_info(reader, source.name, seen.samples, source.transform, labelled=labelled),
        overlap=overlap,
        max_loss=max_loss,
        broken_before=seen.broken,
        layer_shift=layer_shift_change(*audits),
        largest_shift=largest_shift_change(*audits),
        labelled=correct.samples if correct else 0,
        accuracy=correct.change if correct else None,
        only_before_correct=correct.only_before if correct else None,
        only_after_correct=correct.only_after if correct else None,
        p_value=correct.p_value if correct else None,
        loss=_mean(outputs.loss, seed),
        entropy=_mean(outputs.entropy, seed),
        agreement=_share(outputs.agree),
        kl=network.kl,
        relative_rms=network.relative_rms,
        not_finite=seen.comparison.other_not_finite(),
    )
    return Verified(verification, before, after)


def layer_figures(
    layers: list[BNLayer], records: dict[str, LayerRecord], final_groups: Tensor
) -> dict[str, LayerAudit]:
    """The figures of all audited layers by name; `final_groups` as in `audit_layer`."""
    figures = {}
    for layer in layers:
        record = records.get(layer.name)
        described = describe_layer(layer, record)
        if described.status == "audited" and record is not None:
            figures[layer.name] = audit_layer(layer, record, final_groups)[0]
    return figures


def _audit(layers: dict[str, LayerAudit]) -> Audit:
    """Just enough of an Audit to compare shifts."""
    nothing = ModelInfo("", 0, {})
    return Audit({}, "", "", nothing, None, None, tuple(layers.values()), None)


def _mean(figures: tuple[np.ndarray, np.ndarray] | None, seed: int) -> Change | None:
    found = mean_change(*figures, seed) if figures is not None else None
    return Change(*found) if found is not None else None


def _share(agree: np.ndarray | None) -> Share | None:
    return Share(*share(int(agree.sum()), len(agree))) if agree is not None and len(agree) else None
