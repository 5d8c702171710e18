"""What can be told of the data and their batches from the first samples of a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bnaudit.engine.batches import Batch, is_image_list, labels_of
from bnaudit.engine.conditions import Subject
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.per_sample import PaddedMoments, show_inputs
from bnaudit.results import Audit, BatchOrder, Change, DataChecks, PaddedLayer, Spread
from bnaudit.stats.batch_order import between_batches
from bnaudit.stats.moments import Moments
from bnaudit.stats.roots import jackknife_change
from bnaudit.verbs.few_layers import groups_of
from bnaudit.verbs.figures import shift_estimates
from bnaudit.verbs.kept import Kept

CHECKED_SAMPLES = 128
"""So many samples tell about padding: their inputs are looked at position by position."""

ORDER_SAMPLES = 512
"""So many tell about the order of a loader's batches."""

LEAST_PADDED = 0.02
"""A smaller share of the positions moves no statistics that matter."""


def check_data(audit: Audit, subject: Subject, kept: Kept) -> DataChecks:
    """The checks that these data allow. Inside `conditions.entered(model)`.

    Batches that bnaudit drew at random need no check of their order; those of a loader do.
    """
    layers = [layer for layer in subject.layers if layer.role == "estimated" and layer.verified]
    by_name = {layer.name: layer for layer in layers}
    found = DataChecks()
    given = kept.reader.order_seed is None
    if given and len(kept.batches) > 1:
        found = DataChecks(order=_order(kept.as_given(ORDER_SAMPLES)))
    over_sequences = [by_name[name] for name in _over_sequences(audit) if name in by_name]
    if over_sequences:
        few = kept.regrouped(CHECKED_SAMPLES)
        found = DataChecks(found.order, _padding(subject, over_sequences, few))
    return found


def _order(batches: Sequence[Batch]) -> BatchOrder | None:
    """From labels and inputs alone: no forward is needed."""
    sizes = [batch.size for batch in batches]
    figures: list[tuple[Literal["labels", "inputs", "levels"], Tensor]] = []
    labels = [labels_of(batch.data) for batch in batches]
    if all(given is not None for given in labels):
        classes = torch.cat([given.cpu() for given in labels if given is not None])
        figures.append(("labels", functional.one_hot(classes.unique(return_inverse=True)[1])))
    inputs = [_thumbnails(batch.data) for batch in batches]
    if all(given is not None for given in inputs):
        pieces = [given.cpu() for given in inputs if given is not None]
        width = pieces[0].shape[1]
        if [piece.shape for piece in pieces] == [(size, width) for size in sizes]:
            together = torch.cat(pieces)
            figures.append(("inputs", together))
            figures.append(("levels", torch.stack([together.mean(1), together.std(1)], 1)))
    spreads = []
    for name, values in figures:
        found = between_batches(values.double().numpy(), sizes)
        if found is not None:
            spreads.append(Spread(name, found.ratio, found.p_value))
    return BatchOrder(sum(sizes), len(sizes), tuple(spreads)) if spreads else None


def _thumbnails(data: Any) -> Tensor | None:
    """A few figures of each sample's input, (N, F): images of 4×4 pixels, or means over stretches.

    None where the inputs are no tensor of floats.
    """
    first = data
    if is_image_list(data):
        return None
    if isinstance(data, Mapping):
        first = next((value for value in data.values() if isinstance(value, Tensor)), None)
    elif isinstance(data, (list, tuple)) and data:
        first = data[0]
    if not isinstance(first, Tensor) or not first.is_floating_point() or first.dim() < 2:
        return None
    values = first.detach().float()
    if values.dim() == 4:
        return functional.adaptive_avg_pool2d(values, 4).flatten(1)
    flat = values.flatten(1)
    if flat.shape[1] <= 64:
        return flat
    return functional.adaptive_avg_pool1d(flat[:, None], 64)[:, 0]


def _over_sequences(audit: Audit) -> list[str]:
    """BatchNorm1d layers that see several positions a sample."""
    samples = audit.data.samples if audit.data else 0
    return [
        layer.name
        for layer in audit.audited
        if layer.kind == "BatchNorm1d" and layer.count > samples > 0
    ]


def _padding(
    subject: Subject, layers: list[BNLayer], batches: list[Batch]
) -> tuple[PaddedLayer, ...]:
    look = PaddedMoments(groups_of(batches))
    show_inputs(subject, layers, batches, look)
    padded = []
    for layer in layers:
        shares = look.padded.get(layer.name)
        if not shares:
            continue
        share = float(torch.cat(shares).mean())
        if share < LEAST_PADDED:
            continue
        change = _change(
            layer, look.all_positions[layer.name].moments, look.without[layer.name].moments
        )
        if change is not None:
            padded.append(PaddedLayer(layer.name, share, change))
    return tuple(padded)


def _change(layer: BNLayer, everything: Moments, without: Moments) -> Change | None:
    assert layer.eps is not None
    used = (everything.count > 0) & (without.count > 0)
    mean, var = (t.detach().to("cpu", torch.float64) for t in layer.estimated)
    figures = []
    for moments in (everything, without):
        estimate, _, left_out = shift_estimates(
            moments.select(used), (mean, var), layer.eps, layer.gamma()
        )
        figures.append((estimate.plain**2, np.array(left_out)))
    change = jackknife_change(*figures[0], *figures[1])
    return Change(*change) if change is not None else None
