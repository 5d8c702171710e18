"""Results that no model was measured for, in every form that a report has to show."""

from __future__ import annotations

import math
from dataclasses import replace

from bnaudit.results import (
    Attribution,
    Audit,
    Change,
    DataInfo,
    Decision,
    Estimate,
    LayerAudit,
    MemoryEstimate,
    ModelInfo,
    Recalibrated,
    RecalibratedLayer,
    Share,
    Verification,
)

MODEL = ModelInfo(
    source="nets.py:resnet", parameters=272_474, bn_layers={"BatchNorm2d": 9}, checkpoint="a.pt"
)
DATA = DataInfo(
    source="npz:calibration.npz: 5,000 RGB images of 32×32",
    samples=1000,
    available=5000,
    batch_size=32,
    seed=0,
    groups=50,
    fingerprint="0",
    transform="nets.py:transform",
    labelled=True,
)


def estimate(value: float, spread: float = 0.08, *, withheld: bool = False) -> Estimate:
    if withheld:
        return Estimate(value, value)
    low, high = max(0.0, value * (1 - spread)), value * (1 + spread)
    return Estimate(value, value * 1.01, low, high, value * 0.05, 0.001, 50)


def name(i: int) -> str:
    return "bn" if i == 0 else f"layer{(i - 1) // 6 + 1}.{(i - 1) % 6 // 2}.bn{(i - 1) % 2 + 1}"


def audit(layers: int, scale: float = 1.0) -> Audit:
    """Own shifts of which a few are large, inherited ones that grow with depth."""

    def layer(i: int) -> LayerAudit:
        own = scale * (0.05 + 0.3 * (i % 7 == 5))
        inherited = scale * 0.2 * i / layers
        total = math.hypot(own, inherited)
        return LayerAudit(
            name(i),
            "BatchNorm2d",
            "audited",
            channels=32,
            order=i,
            calls_per_forward=1,
            total_shift=estimate(total),
            output_shift=estimate(total * 0.9),
            mean_part=0.8 * total,
            scale_part=0.6 * total,
            worst_channel=31,
            worst_channel_shift=3 * total,
            own_shift=replace(estimate(own), low=0.0) if i == 1 else estimate(own),
            own_output_shift=estimate(own * 0.9),
            inherited_shift=inherited,
            attributed_shift=total,
        )

    names = tuple(name(i) for i in range(layers) if i % 7 == 5)
    return Audit(
        versions={},
        device="cpu",
        dtype="float32",
        model=replace(MODEL, bn_layers={"BatchNorm2d": layers}),
        data=DATA,
        batch_statistics_size=32,
        layers=tuple(layer(i) for i in range(layers)),
        network=None,
        attribution=Attribution(
            samples=512,
            spearman=0.83,
            first_third=0.052 * scale,
            last_third=0.31 * scale,
            layers_that_matter=names,
            search_samples=256,
            effect="kl",
            full_effect=0.0512,
            left_effect=0.0043,
        ),
    )


def change(before: float, after: float, half: float | None = 0.01) -> Change:
    difference = after - before
    if half is None:
        return Change(before, after, difference)
    return Change(before, after, difference, difference - half, difference + half)


def verification(*, labelled: bool = True) -> Verification:
    return Verification(
        data=replace(DATA, source="npz:heldout.npz", samples=2000, labelled=labelled),
        overlap=3,
        max_loss=0.005,
        layer_shift=change(0.2834, 0.0412),
        largest_shift=change(1.234, 0.0621, 0.2),
        labelled=2000 if labelled else 0,
        accuracy=change(0.612, 0.754, 0.021) if labelled else None,
        loss=change(1.234, 0.884, 0.05) if labelled else None,
        entropy=change(0.412, 0.633),
        agreement=Share(0.712, 0.691, 0.732),
        kl=0.312,
    )


def recalibrated(decision: Decision, layers: int = 9, scale: float = 1.0) -> Recalibrated:
    """All but two of the layers recalibrated, and verified unless the decision says otherwise."""

    def layer(i: int) -> RecalibratedLayer:
        own, inherited = scale * (0.02 + 0.05 * (i % 5)), scale * 0.1 * i / layers
        total = math.hypot(own, inherited)
        return RecalibratedLayer(
            name(i),
            "BatchNorm2d",
            32,
            changed=True,
            order=i,
            own_shift=estimate(own),
            own_output_shift=estimate(own),
            inherited_shift=inherited,
            calibration_before=total,
            calibration_after=2.3e-7,
            verify_before=estimate(total),
            verify_after=estimate(0.021),
            noise_floor=0.0121,
        )

    keeping = tuple(
        RecalibratedLayer(where, "BatchNorm2d", 32, changed=False, reason=why)
        for where, why in (("aux.bn1", "never called"), ("head.bn", "frozen (--include-frozen)"))
    )
    return Recalibrated(
        versions={},
        device="cpu",
        dtype="float32",
        model=replace(MODEL, bn_layers={"BatchNorm2d": layers + 2}),
        data=DATA,
        asked="exact",
        method="exact",
        layers=(*(layer(i) for i in range(layers)), *keeping),
        decision=decision,
        residual_before=0.475 * scale,
        residual=2.3e-7,
        residual_layer="bn",
        noise_floor=0.0121,
        noise_floor_layer="layer2.0.bn1",
        samples_enough=1000,
        memory=MemoryEstimate(1_234_567, 1_234_567_000, 8_000_000_000, "cpu"),
        verification=verification(),
    )
