"""Comparisons and verdicts that no model was measured for, in every form that has to be shown."""

from __future__ import annotations

import functools
from dataclasses import replace

from made_up import name

from bnaudit.results import (
    Changes,
    Check,
    Difference,
    Finding,
    Gate,
    LayerChange,
    NetworkChange,
    Side,
    Waived,
)

BEFORE = Side(
    source="main.json",
    model="nets.py:resnet",
    checkpoint="main.pt",
    checkpoint_sha256="ab" * 32,
    data="npz:val.npz: 5,000 RGB images of 32×32",
    samples=2000,
    seed=0,
    tool="0.4.0",
)
AFTER = replace(BEFORE, source="ckpt.pt", checkpoint="ckpt.pt", checkpoint_sha256="cd" * 32)

NASTY = "a|b`c*d_e<f>&g,h:i%j\n::error::x\x1b[31m]]>\ud800@team [bold]'\"$(id)\u202e"
"""A name with something in it for every format that a report is written in."""


def difference(before: float, after: float, half: float | None = 0.01) -> Difference:
    change = after - before
    if half is None:
        return Difference(before, after, change)
    limits = (change - half, change + half, change - 2 * half, change + 2 * half)
    return Difference(before, after, change, *limits)


def changes(
    layers: int = 9, *, half: float | None = 0.01, grown: tuple[int, ...] = (5,)
) -> Changes:
    """The layers `grown` are worse by 0.3, the others as they were but for noise."""

    def layer(i: int) -> LayerChange:
        before = 0.05 + 0.01 * (i % 5)
        after = before + (0.3 if i in grown else 0.002 * (-1) ** i)
        return LayerChange(
            name(i), name(i), difference(before, after, half), difference(before, after, half)
        )

    worse = bool(grown)
    return Changes(
        before=BEFORE,
        after=AFTER,
        paired=True,
        layers=tuple(layer(i) for i in range(layers)),
        network=(
            NetworkChange("total_esm", difference(0.07, 0.12 if worse else 0.07, half)),
            NetworkChange("accuracy", difference(0.912, 0.884 if worse else 0.911, half)),
            NetworkChange("loss", difference(0.31, 0.36 if worse else 0.31, half)),
            NetworkChange("disagreement", difference(0.02, 0.06 if worse else 0.02, half)),
        ),
        gained=(finding(),) if worse else (),
    )


def finding(code: str = "BN101", layers: tuple[str, ...] = ("layer1.2.bn1",)) -> Finding:
    return Finding(
        code=code,
        name="estimation-shift",
        severity="error",
        sentence=f"The output shift of {len(layers)} of 9 layers exceeds 0.1.",
        remedy="Recalibrate.",
        source="Huang 2022",
        layers=layers,
    )


FAILING = Check(
    kind="finding",
    name="BN101",
    title="estimation-shift",
    outcome="fail",
    sentence="The output shift of 1 of 9 layers exceeds 0.1: 0.35 (0.33 to 0.37) in layer1.2.bn1.",
    severity="error",
    layers=("layer1.2.bn1",),
    remedy="Recalibrate on data like those of production.",
    command="bnaudit recalibrate ckpt.pt --model nets.py:resnet --data npz:calibration.npz",
    value=0.35,
    limit=0.1,
)
REGRESSED = Check(
    kind="regression",
    name="layer_esm",
    title="output shift of a layer",
    outcome="fail",
    sentence="The output shift of 1 of 9 layers grew by more than 0.05: 0.05 to 0.35.",
    layers=("layer1.2.bn1",),
)
OPEN = Check(
    kind="limit",
    name="min_accuracy",
    title="accuracy at least 0.9",
    outcome="inconclusive",
    sentence="Top-1 accuracy is 0.91, and 200 samples are too few to rule out 0.85.",
    remedy="Measure about 1,900 samples.",
)
PASSED = Check(
    kind="limit",
    name="max_total_esm",
    title="output shift over all layers at most 0.2",
    outcome="pass",
    sentence="Its root mean square over 9 layers is 0.12.",
)


def failing() -> Gate:
    """A gate with something of everything."""
    return Gate(
        outcome="fail",
        sentence="2 checks fail, 1 is inconclusive, 1 passes.",
        subject=AFTER,
        checks=(FAILING, REGRESSED, OPEN, PASSED),
        waived=(
            Waived(finding("BN201", ("bn",)), "gate.ignore BN201"),
            Waived(finding("BN004", ()), "baseline"),
        ),
        findings=(replace(finding("BN106"), severity="info"),),
        unused_ignores=("gate.ignore BN302: nothing to ignore any more",),
        changes=replace(
            changes(), added=("head.bn",), removed=("neck.bn",), notes=("Other versions of torch.",)
        ),
        notes=("No labels.",),
        exit_code=1,
    )


def passing() -> Gate:
    return Gate("pass", "Nothing fails.", AFTER, (PASSED,))


def inconclusive(*, exit_code: int = 1) -> Gate:
    sentence = "1 check is inconclusive: too few samples."
    return Gate("inconclusive", sentence, AFTER, (OPEN, PASSED), exit_code=exit_code)


def nasty() -> Gate:
    """A gate in which everything that can come from a file is hostile."""
    side = replace(AFTER, source=NASTY, checkpoint=NASTY, model=NASTY, data=NASTY)
    found = replace(finding(layers=(NASTY,)), sentence=NASTY, name=NASTY, remedy=NASTY)
    check = replace(FAILING, layers=(NASTY, NASTY + "2"), sentence=NASTY, title=NASTY)
    check = replace(check, remedy=NASTY, command=NASTY)
    layer = LayerChange(NASTY, "b" + NASTY, difference(0.1, 0.5), None, note=NASTY)
    compared = replace(
        changes(3), before=side, layers=(layer,), added=(NASTY,), gained=(found,), notes=(NASTY,)
    )
    return Gate(
        outcome="fail",
        sentence=NASTY,
        subject=side,
        checks=(check, replace(check, outcome="inconclusive"), replace(check, outcome="pass")),
        waived=(Waived(found, NASTY),),
        findings=(found,),
        unused_ignores=(NASTY,),
        changes=compared,
        notes=(NASTY,),
        exit_code=1,
    )


def many(checks: int, outcome: str = "fail") -> Gate:
    """A gate with so many failing checks, each of a layer of its own."""
    each = [
        replace(FAILING, layers=(f"layer{i}",), sentence=f"layer{i} is off.") for i in range(checks)
    ]
    return Gate("fail", f"{checks} checks fail.", AFTER, tuple(each), exit_code=1)


@functools.cache
def measured() -> tuple[Gate, Gate]:
    """Verdicts on a real network: with the statistics of its data, and with one layer's wrong.

    Each against the first one's Audit as the baseline.
    """
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    import bnaudit
    from bnaudit.verbs.gate import gate

    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 12), nn.BatchNorm1d(12)),
        *(nn.ReLU(), nn.Linear(12, 3)),
    )
    x = torch.randn(600, 6)
    data = TensorDataset(x, model.eval()(x).argmax(1))
    bnaudit.recalibrate(model, data, force=True)
    before = bnaudit.measure(model, data)
    model[4].running_var.mul_(4.0)
    after = bnaudit.measure(model, data)
    return gate(before, baseline=before), gate(after, baseline=before)
