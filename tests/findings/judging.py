"""Verdicts of the gate on Audits, and what the tests ask of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

from audits import chain, exactly_calibrated, gaussian
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.config.keywords import gate_settings
from bnaudit.findings.policy import Policy
from bnaudit.results import Audit, Check, Gate
from bnaudit.verbs.gate import gate

X = gaussian(400, 32)

NO_BN2 = Policy(ignore=("BN2",))
"""Without what the outputs make of a shift: the tests are about the layers."""


class Branches(nn.Module):
    """Two chains side by side: what is wrong in one is not inherited by the other.

    (N, 32) to (N, 32), with the layers left.1, left.4, right.1 and right.4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = chain(2, seed=0), chain(2, seed=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


LAST = ("left.4", "right.4")
"""The last layers of the branches: no other inherits from them."""


@cache
def _calibrated(x: Tensor) -> nn.Module:
    return exactly_calibrated(Branches(), x)


def branches(wrong: Mapping[str, float] | None = None, x: Tensor = X) -> nn.Module:
    """Statistics exact on `x`, but for running variances that are off by these factors."""
    model = copy.deepcopy(_calibrated(x))
    for module in model.modules():  # as after training: a count of 0 would be a finding itself
        if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None:
            module.num_batches_tracked.fill_(1000)
    for name, factor in (wrong or {}).items():
        running_var = model.get_submodule(name).running_var
        assert isinstance(running_var, Tensor)
        running_var *= factor
    return model


def audit_of(model: nn.Module, *data: Tensor, **options: Any) -> Audit:
    """Without where the shift comes from, which the gate does not ask for.

    `options`: of `measure`; the policy is `NO_BN2` and few batches are read unless they are given.
    """
    options = {"policy": NO_BN2, "batch_size": 100, **options}
    return bnaudit.measure(model, TensorDataset(*data), attribute="none", **options)


def judged(
    audit: Audit, baseline: Audit | None = None, *, policy: Policy = NO_BN2, **settings: Any
) -> Gate:
    """The verdict under these settings of [gate]."""
    return gate(audit, baseline=baseline, settings=gate_settings(settings), policy=policy)


def failing(verdict: Gate) -> dict[str, tuple[str, ...]]:
    """The layers of each check that fails, by its name."""
    return {check.name: check.layers for check in verdict.with_outcome("fail")}


def check_of(verdict: Gate, name: str) -> Check:
    """The only check of that name."""
    (found,) = [check for check in verdict.checks if check.name == name]
    return found


def waived(verdict: Gate) -> dict[str, str]:
    """Why each finding that is left out is, by its code."""
    return {each.finding.code: each.setting for each in verdict.waived}
