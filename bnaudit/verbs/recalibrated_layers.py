"""What a recalibration says of each layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bnaudit.engine.layers import BNLayer
from bnaudit.engine.paired import Paired
from bnaudit.engine.population import Result
from bnaudit.results import NOISE_ENOUGH, LayerAudit, RecalibratedLayer
from bnaudit.verbs.attribution import own_and_inherited
from bnaudit.verbs.calibration import Plan
from bnaudit.verbs.figures import noise_floor
from bnaudit.verbs.mixing import MixingRule
from bnaudit.verbs.verification import Verified, layer_figures


def left_alone(chosen: list[BNLayer], found: Result, rule: MixingRule) -> dict[BNLayer, str]:
    """Why layers that might have changed did not."""
    reasons = {}
    for layer in chosen:
        if layer in found.statistics:
            continue
        if layer in rule.kept:
            reasons[layer] = rule.kept[layer]
        elif layer not in found.populations:
            reasons[layer] = "never called on these data"
        else:
            reasons[layer] = "a single value a channel, or none: no variance to take"
    return reasons


class LayerDescriber:
    """Puts together what the calibration, the check on its data and the verification saw."""

    def __init__(
        self,
        layers: list[BNLayer],
        plan: Plan,
        found: Result,
        calibrated: Paired,
        verified: Verified | None,
    ) -> None:
        self._plan, self._found, self._calibrated, self._verified = (
            plan,
            found,
            calibrated,
            verified,
        )
        groups = torch.arange(plan.batches.groups, device="cpu")
        self._before = layer_figures(layers, calibrated.before, groups)
        self._after = layer_figures(layers, calibrated.after, groups)

    def __call__(self, layer: BNLayer, reason: str | None) -> RecalibratedLayer:
        """`reason`: why the layer kept its statistics, where it did."""
        before, after = self._before.get(layer.name), self._after.get(layer.name)
        described = RecalibratedLayer(
            name=layer.name,
            kind=layer.kind,
            channels=layer.channels,
            changed=layer in self._found.statistics,
            reason=reason,
            aliases=layer.aliases,
            order=before.order if before is not None else None,
            calibration_before=_plain(before),
            calibration_after=_plain(after),
        )
        if self._verified is not None:
            old, new = (side.get(layer.name) for side in self._verified.sides)
            described = replace(
                described,
                verify_before=old.total_shift if old is not None else None,
                verify_after=new.total_shift if new is not None else None,
            )
        return self._with_population(described, layer)

    def _with_population(self, described: RecalibratedLayer, layer: BNLayer) -> RecalibratedLayer:
        population = self._found.populations.get(layer)
        if population is None or layer.eps is None:
            return described
        groups = population.groups.select(population.groups.count > 0)
        described = replace(described, noise_floor=noise_floor(groups, layer.eps))
        record = self._calibrated.before.get(layer.name)
        if not self._plan.by_layer or record is None:
            return described
        shift = own_and_inherited(record, population)
        if shift is None:
            return described
        return replace(
            described,
            own_shift=shift.own,
            own_output_shift=shift.own_output,
            inherited_shift=shift.inherited,
        )


def _plain(layer: LayerAudit | None) -> float | None:
    shift = layer.total_shift if layer is not None else None
    return shift.plain if shift is not None else None


def largest(changed: list[RecalibratedLayer], samples: int) -> dict[str, Any]:
    """The fields of `Recalibrated` that speak of the worst layers."""
    figures: dict[str, Any] = {}
    after = [layer for layer in changed if layer.calibration_after is not None]
    if after:
        worst = max(after, key=lambda layer: layer.calibration_after or 0.0)
        figures |= {"residual": worst.calibration_after, "residual_layer": worst.name}
        figures["residual_before"] = max(layer.calibration_before or 0.0 for layer in after)
    noisy = [layer for layer in changed if layer.noise_floor is not None]
    if noisy:
        worst = max(noisy, key=lambda layer: layer.noise_floor or 0.0)
        floor = worst.noise_floor or 0.0
        enough = samples * (floor / NOISE_ENOUGH) ** 2
        figures |= {"noise_floor": floor, "noise_floor_layer": worst.name}
        figures["samples_enough"] = max(1, round(float(f"{enough:.2g}")))
    return figures
