"""Claim h3: Batch/Group Norm survives batch 2.

The stack P12 of claim a with Batch Norm, Group Norm and Batch/Group Norm (4 groups of channels, the
whole batch).

Hypotheses, written down before seeds 0, 1, … were run (development used seeds from 100):
h3a Trained at batch 2, Batch/Group Norm has a higher test accuracy than Batch Norm.
h3b Trained at batch 2, it has a higher test accuracy than Group Norm, which batches do not touch.
Secondary: from batch 32 to batch 2 it loses less than Batch Norm; trained at batch 2 and 32 it is
equivalent within 2 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import nn

from bnaudit import nn as bnn
from reproduce.claim import PERCENT, POINTS, Claim, Difference, Equivalence, Row, Table
from reproduce.drawing import COLOURS, categories, drawn, panels
from reproduce.figures import accuracy_of
from reproduce.networks import GROUPS, WIDTH, Norm, batch_norm, group_norm
from reproduce.stacks import side_by_side, stack
from reproduce.zoo import Zoo

BATCHES = (2, 32)
MARGIN = 0.02


@dataclass(frozen=True)
class Accuracies:
    """Test accuracy of one kind of norm, trained at batch 2 and at batch 32."""

    at_2: float
    at_32: float


@dataclass(frozen=True)
class Figures:
    """One seed."""

    batch: Accuracies
    group: Accuracies
    batch_group: Accuracies


def batch_group_norm(position: int) -> nn.Module:
    """Batch/Group Norm with 4 groups of channels at every position."""
    return bnn.BatchGroupNorm2d(WIDTH, groups=GROUPS)


def run(zoo: Zoo) -> Figures:
    """Train each at both batch sizes."""
    return Figures(*(_accuracies(zoo, n) for n in (batch_norm, group_norm, batch_group_norm)))


def _accuracies(zoo: Zoo, norm: Norm) -> Accuracies:
    return Accuracies(*(accuracy_of(stack(zoo, size, norm), zoo.test) for size in BATCHES))


def plot(figures: Sequence[Figures]) -> Figure:
    """Test accuracy by norm and batch size."""
    figure, axes = panels(2, "Claim h3: norms in P12 at small batch")
    for panel, size in zip(axes, BATCHES, strict=True):
        values = [
            [100 * getattr(getattr(one, kind), f"at_{size}") for one in figures]
            for kind in ("batch", "group", "batch_group")
        ]
        labels = ("Batch\nNorm", "Group\nNorm", "Batch/Group\nNorm")
        categories(panel, labels, values, (COLOURS[0], COLOURS[3], COLOURS[2]))
        panel.set_title(f"trained at batch {size}", fontsize=9)
        panel.set_ylabel("test accuracy (%)")
    return drawn(figure)


CLAIM = Claim(
    key="h3",
    title="Batch/Group Norm survives batch 2",
    says="Summers 2020, section 3.4: at batches of two or so, where Batch Norm fails, "
    "normalising groups of channels and examples together stays accurate, and beats Group Norm.",
    recipe="P12 with Batch Norm, with Group Norm and with `BatchGroupNorm2d` (both 4 groups of "
    "channels; the latter over the whole batch), at batch 2 and 32 as in claim a.",
    seeds=10,
    figures=Figures,
    run=run,
    primary=(
        Difference(
            "h3a",
            "batch 2: accuracy, Batch/Group Norm − Batch Norm",
            lambda one: one.batch_group.at_2 - one.batch.at_2,
            POINTS,
        ),
        Difference(
            "h3b",
            "batch 2: accuracy, Batch/Group Norm − Group Norm",
            lambda one: one.batch_group.at_2 - one.group.at_2,
            POINTS,
        ),
    ),
    secondary=(
        Difference(
            "h3c",
            "from batch 32 to 2 it loses less accuracy than Batch Norm",
            lambda one: (
                (one.batch.at_32 - one.batch.at_2) - (one.batch_group.at_32 - one.batch_group.at_2)
            ),
            POINTS,
        ),
        Equivalence(
            "h3d",
            "trained at batch 2 and at 32 it is equivalent",
            lambda one: one.batch_group.at_2 - one.batch_group.at_32,
            POINTS,
            MARGIN,
        ),
    ),
    tables=(
        Table(
            "Accuracy on the test images",
            "",
            (("trained at batch 2", PERCENT), ("trained at batch 32", PERCENT)),
            (
                Row("Batch Norm", (lambda one: one.batch.at_2, lambda one: one.batch.at_32)),
                Row("Group Norm", (lambda one: one.group.at_2, lambda one: one.group.at_32)),
                Row(
                    "Batch/Group Norm",
                    (lambda one: one.batch_group.at_2, lambda one: one.batch_group.at_32),
                ),
            ),
        ),
    ),
    plot=plot,
    prepares=tuple(side_by_side(2, norm) for norm in (batch_norm, group_norm, batch_group_norm)),
)
