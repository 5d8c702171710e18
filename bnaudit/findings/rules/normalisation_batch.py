"""BN220 to BN222: what sweeps over the batch size and the example weight say."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.findings.rules.sweeps import LOSS_GAIN, evidence_of, gains
from bnaudit.results.sweep import Sweep


@rule(
    "BN220",
    "trained-at-batch-size",
    "info",
    Sweep,
    means="The mini-batch size at which the network was probably trained, or a smaller one, by how "
    "it does under mini-batch statistics of several sizes.",
    computed="`bnaudit sweep batch-size`: the network in evaluation mode, its BatchNorm layers "
    "normalising by mini-batches of each size, on the training data where they are given. The "
    "sizes whose accuracy is at its peak (`candidates`: not below the best by more than a point, "
    "significantly; paired, 95% each), and the smallest of them. Weights bear the noise of their "
    "own mini-batches, and less, so larger sizes can rarely be told apart: a hint. No finding "
    "where the smallest size does as well as the best, or --train-batch-size says it.",
    matters="No checkpoint stores it, and it decides how far training and inference are apart "
    "(Wu 2021, section 4).",
    remedy="Nothing by itself: measure with --train-batch-size at this size.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 4",
)
def trained_at(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """What the sweep says, where it says something and nobody knows better."""
    trained = sweep.conclusion("trained-at")
    if sweep.current is not None or trained is None or trained.value is None:
        return
    if not trained.significant:
        return
    yield Found(trained.sentence, (), evidence_of(trained))


@rule(
    "BN221",
    "small-normalisation-batch",
    "warning",
    Sweep,
    means="At the small mini-batch size that the network was trained with, noisy statistics cost "
    "accuracy: those of larger mini-batches make it more accurate.",
    computed="`bnaudit sweep batch-size --train-batch-size N`: the size that was said is at most "
    "the threshold `size`, and the held-out accuracy under the largest size that was tried is "
    "higher by the threshold `gain`, with a 95% interval (paired, Tango) above 0.",
    matters="What was seen in training has noise that inference has not. The weights bear it, but "
    "larger normalisation batches, or statistics of the whole population, do better (Wu 2021, "
    "section 4; Summers 2020, section 3.4).",
    remedy="At inference: statistics of the whole population (bnaudit recalibrate). In training: "
    "larger normalisation batches (SyncBatchNorm), a norm without batches, or frozen statistics "
    "for the last epochs (bnaudit.nn).",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 4; Summers & Dinneen 2020 "
    "(arXiv:1906.03548), section 3.4",
    thresholds=(
        Threshold(
            "size",
            16,
            "Samples. Wu 2021 finds the gap between training and inference to grow below 16 to 32.",
            least=2,
        ),
        Threshold(
            "gain",
            0.005,
            "Accuracy, 0 to 1. Half a point, as in BN203: with many samples smaller differences "
            "are certain and do not matter.",
        ),
    ),
)
def small_batch(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """Trained at few samples, and more do better."""
    larger, size = sweep.conclusion("larger-batch"), sweep.current
    if sweep.kind != "batch-size" or larger is None or larger.gain is None:
        return
    if size is None or size > limits["size"]:
        return
    if not larger.significant or larger.gain.difference < limits["gain"]:
        return
    yield Found(
        f"It was trained with mini-batches of {size:.0f}. {larger.sentence}",
        (),
        {"size": size, "larger": evidence_of(larger)},
    )


@rule(
    "BN222",
    "example-weighing-helps",
    "info",
    Sweep,
    means="Mixing each example's own statistics into the estimates at inference lowers the loss.",
    computed="`bnaudit sweep example-weight`: m_i = a·E[x_i] + (1 − a)·m̂, the variance from second "
    "moments that are mixed alike. The weight a is chosen by the loss on one half of the labelled "
    "samples; on the other half the loss is lower than with a = 0 by at least the threshold, and "
    "the 95% interval of the change (paired bootstrap) lies below 0, with no certain loss of "
    "accuracy.",
    matters="In training every example is part of the statistics that normalise it, at inference "
    "it is not; weighing brings the two together, most where batches were small (Summers 2020, "
    "section 3.1).",
    remedy="Use the weight at inference: the state dict stays as it is. Recalibration may do as "
    "much: compare.",
    source="Summers & Dinneen 2020 (arXiv:1906.03548), section 3.1",
    thresholds=(LOSS_GAIN,),
)
def example_weighing(sweep: Sweep, limits: Limits) -> Iterator[Found]:
    """The best weight is above 0, and certainly better."""
    best = sweep.conclusion("best") if sweep.kind == "example-weight" else None
    if best is None or not best.value or not gains(best, limits["gain"]):
        return
    yield Found(
        best.sentence,
        (),
        evidence_of(best),
        command=f'bnaudit.nn.convert(model, "example-weighing", alpha={best.value:g})',
    )
