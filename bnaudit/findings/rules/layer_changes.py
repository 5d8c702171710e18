"""Layers that were reset, stored in another type, or are not in both files: BN053 to BN055."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bnaudit.findings.lineage_phrases import distance, file_name
from bnaudit.findings.phrases import (
    plural,
    recalibrate_command,
    some_of,
    upper_first,
    which_layers,
)
from bnaudit.findings.rule import Found, Limits, rule
from bnaudit.results.lineage import LayerLineage, Lineage
from bnaudit.results.state import Floats

HALVES = ("float16", "bfloat16")


@rule(
    "BN053",
    "layers-reset",
    "error",
    Lineage,
    means="Layers that had statistics in the parent are back at mean 0 and variance 1.",
    computed="`m̂ = 0` and `v̂ = 1` exactly in every channel of the child, and not of the parent.",
    matters="At inference such a layer no longer normalises. A layer that was built anew (another "
    "number of classes, converted to SyncBatchNorm by hand), `reset_running_stats()`, or a key "
    "that did not match under `strict=False` does this, and nothing complains.",
    remedy="Copy the statistics of these layers from the parent where the weights before them are "
    "the same, else recalibrate; look for the key that did not match.",
    source="bts issue 90, DPC issue 10; Ioffe & Szegedy 2015 (Algorithm 2)",
)
def layers_reset(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    """Statistics that went back to where they began."""
    reset = [layer for layer in lineage.layers if layer.reset]
    if reset:
        names = tuple(layer.name for layer in reset)
        verb = "is" if len(names) == 1 else "are"
        far = distance(max(layer.output_distance.total for layer in reset))
        text = (
            f"{which_layers(names, len(lineage.layers))} {verb} back at mean 0 and variance 1 in "
            f"every channel, {far} standard deviations from {file_name(lineage.parent)}"
        )
        yield Found(
            upper_first(text) + ".",
            layers=names,
            evidence={"distances": {layer.name: layer.output_distance.total for layer in reset}},
            command=recalibrate_command(lineage.child),
        )


@rule(
    "BN054",
    "dtype-changed",
    "info",
    Lineage,
    means="The statistics are stored in another type of number than the parent's.",
    computed="The type of `running_var` in both files. The figure is the distance (BN051) between "
    "the two where rounding explains all of it. A warning where it became float16 or bfloat16; "
    "then weights that were finite and became infinite are counted too.",
    matters="Half precision keeps 11 (float16) or 8 (bfloat16) bits: an error of 5e-4 or 4e-3 "
    "that no recalibration removes, more where a mean is many standard deviations. Variances "
    "above 65504 or below 6e-8 do not fit into float16 at all.",
    remedy="Keep BatchNorm layers in float32 (call half() on the others, or use autocast).",
    source="fairscale issue 442, TensorRT issue 1450",
)
def dtype_changed(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    """One finding for each change of type."""
    kinds = {(layer.dtype_before, layer.dtype_after) for layer in lineage.layers}
    for before, after in sorted(kind for kind in kinds if kind[0] != kind[1]):
        layers = [x for x in lineage.layers if (x.dtype_before, x.dtype_after) == (before, after)]
        names = tuple(layer.name for layer in layers)
        where = which_layers(names, len(lineage.layers))
        text = f"the statistics of {where} were {before} and are {after}"
        rounded = [x.output_distance.total for x in layers if x.statistics == "rounded"]
        lost = [layer for layer in layers if _overflowed(lineage, layer)]
        if lost:
            overflow = some_of([layer.name for layer in lost])
            text += f"; values that do not fit became infinite in {overflow}"
        elif rounded:
            text += f", rounded by up to {distance(max(rounded))} standard deviations"
        infinite = lineage.network.weights.infinite if after in HALVES else 0
        if infinite:
            text += f"; {plural(infinite, 'weight')} became infinite"
        yield Found(
            upper_first(text) + ".",
            layers=names,
            evidence={
                "before": before,
                "after": after,
                "distance": max(rounded, default=None),
                "overflowed": [layer.name for layer in lost],
                "infinite_weights": infinite,
            },
            severity="warning" if after in HALVES and before not in HALVES else "info",
            remedy=None if after in HALVES else "Nothing to do.",
        )


@rule(
    "BN055",
    "layers-changed",
    "info",
    Lineage,
    means="BatchNorm layers are only in one of the two files, or have another number of channels.",
    computed="By the names of `running_mean` and `running_var`, after one change of prefix that "
    "both files agree on, and by their lengths. A warning where the weights of a layer are there "
    "and its statistics are not.",
    matters="Folded into convolutions, replaced by another norm, pruned by whole channels, or "
    "renamed: nothing can be said about what became of these layers' statistics.",
    remedy="Nothing to do where it was meant; else look at how the names changed.",
    source="Huang 2022 (arXiv:2203.10778), whose XBNBlock replaces layers by batch-free norms",
)
def layers_changed(lineage: Lineage, limits: Limits) -> Iterator[Found]:
    """What is not in both files; for themselves, statistics missing beside their weights."""
    lost = {layer.name for layer in lineage.child.incomplete}  # BN006 calls it an error
    gone = tuple(name for name in lineage.removed if name not in lost)
    unsaved = tuple(name for name in gone if _weights_remain(lineage, name))
    if unsaved:
        yield Found(
            f"{plural(len(unsaved), 'BatchNorm layer')} ({some_of(unsaved)}) of "
            f"{file_name(lineage.parent)} {'has' if len(unsaved) == 1 else 'have'} weights in "
            f"{file_name(lineage.child)} and no statistics: they were not saved, and a model that "
            "loads it normalises by 0 and 1.",
            layers=unsaved,
            evidence={"unsaved": list(unsaved)},
            severity="warning",
            remedy="Save the buffers (state_dict(), not only parameters()); else copy the "
            "parent's where the weights are the same, or recalibrate.",
        )
    removed = tuple(name for name in gone if name not in unsaved)
    parts = [
        _part(lineage.added, "only in", file_name(lineage.child)),
        _part(removed, "only in", file_name(lineage.parent)),
        _part(lineage.resized, "of another number of channels than in", file_name(lineage.parent)),
    ]
    if any(parts):
        yield Found(
            upper_first("; ".join(part for part in parts if part)) + ".",
            layers=(*lineage.added, *removed, *lineage.resized),
            evidence={
                "added": list(lineage.added),
                "removed": list(removed),
                "resized": list(lineage.resized),
            },
        )


def _weights_remain(lineage: Lineage, name: str) -> bool:
    """Whether the child has the weights of a layer of the parent, and not its statistics."""
    gone = lineage.network.removed
    return lineage.parent[name].gamma is not None and f"{name}.weight" not in gone


def _part(names: tuple[str, ...], how: str, file: str) -> str:
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    layers = plural(len(names), "BatchNorm layer")
    return f"{layers} ({some_of(names)}) {verb} {how} {file}"


def _overflowed(lineage: Lineage, layer: LayerLineage) -> bool:
    child, parent = lineage.child[layer.name], lineage.parent[layer.parent_name]
    after = _both(child.running_mean, child.running_var)
    return bool((_both(parent.running_mean, parent.running_var) & ~after).any())


def _both(mean: Floats, var: Floats) -> NDArray[np.bool_]:
    """Where both are finite."""
    return np.isfinite(mean) & np.isfinite(var)
