"""BN320 to BN323: what leaks between the samples of a batch."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings.phrases import named, number, plural, some_of
from bnaudit.findings.rule import Found, Limits, Threshold, rule
from bnaudit.results.change import Change
from bnaudit.results.leakage import Arrangement, Dependence, Leakage, SizeLeakage, Strangers

LEVEL = 0.05

MOSTLY = 0.5
"""How far the purity of an order has to go from that of shuffled batches to that of one class."""

GAIN = Threshold(
    "accuracy",
    0.01,
    "Share of samples, 0 to 1, by which batches have to differ, beyond noise: one in a hundred is "
    "what a user would notice.",
)
STRANGE = Threshold(
    "mates",
    0.05,
    "Share of strangers, 0 to 1, that get their mates' class more than in shuffled batches: one in "
    "twenty.",
)


@rule(
    "BN320",
    "exploits-batch-mates",
    "warning",
    Leakage,
    means="Under mini-batch statistics the model does better in batches that belong together than "
    "in shuffled ones, or gives samples the class of their mates: it has learned to read a label "
    "from the rest of the batch.",
    computed="The same samples in shuffled batches and in batches of one class, one source, or "
    "the files' order, each over several draws; the paired difference of accuracy with an "
    "interval that counts samples, batches and draws; all arrangements tested together, "
    "family-wise 5% (Holm). Strangers are samples among mates of one other class: the share that "
    "gets the mates' class, against how often the same samples get that class in shuffled batches, "
    "at 5% over all sizes.",
    matters="A model that was trained on batches which group classes can take the label from the "
    "batch's moments in place of the image: training looks perfect, and inference, which has no "
    "mates, fails (Wu 2021, section 6). Recalibration mends a part of it at most, for the weights "
    "were trained to look at the batch. "
    "Batches of one source, or in the files' order, may also do better because their domain has "
    "other statistics: that is no leak, `bnaudit domains` measures it, and the finding is an info "
    "then. It is a warning where strangers follow their mates, where batches of one class do "
    "better, or where an order does whose batches are mostly of one class (more than half of the "
    "way from shuffled ones) and batches of one class do not do worse.",
    remedy="Train anew with batches that are shuffled over all classes and sources (and over "
    "ranks, or SyncBatchNorm, where each rank normalises by itself); recalibration alone mends a "
    "part at most.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 6",
    thresholds=(GAIN, STRANGE),
)
def exploits_batch_mates(found: Leakage, limits: Limits) -> Iterator[Found]:
    """Grouped batches are better, or strangers get their mates' class."""
    gains, strange = _gains(found, limits), _strange(found, limits)
    if not gains and not strange:
        return
    parts = []
    if gains:
        size, best = max(gains, key=lambda pair: _gain(pair[1]))
        assert best.accuracy is not None
        parts.append(
            f"In batches of {size.size} {_grouped(best)} the model gets "
            f"{_percent(best.accuracy.after)} right, in shuffled ones of the same samples "
            f"{_percent(best.accuracy.before)} ({_points(best.accuracy)})"
        )
    if strange:
        size, strangers = max(strange, key=lambda pair: pair[1].mates.difference)
        parts.append(
            f"{_percent(strangers.mates.after)} of samples among {size.size - 1} mates of another "
            f"class get their mates' class (in shuffled batches "
            f"{_percent(strangers.mates.before)}), {_percent(strangers.own.value)} their own"
        )
    deployed = found.deployed.accuracy
    if deployed is not None:
        parts.append(f"at inference, without mates, {_percent(deployed.value)} are right")
    may_be_domains = not _reads_mates(found, limits)
    yield Found(
        "; ".join(parts) + ".",
        (),
        {
            "gains": {f"{one.by}, {size.size}": _gain(one) for size, one in gains},
            "mates": {str(size.size): one.mates.difference for size, one in strange},
        },
        severity="info" if may_be_domains else None,
        remedy="Find out whether the groups differ in their statistics (bnaudit domains), or the "
        "model was trained on batches of one group: those are to be shuffled."
        if may_be_domains
        else None,
    )


@rule(
    "BN321",
    "eval-depends-on-batch",
    "error",
    Leakage,
    means="In eval mode the output of a sample depends on the rest of its batch.",
    computed="A few samples are run in their batch, alone, with other mates, and in another order; "
    "the outputs of every module are compared, each sample with itself. A difference counts beyond "
    "1e-4 of the largest output (half precision: 3e-2), where rounding gives 1e-6; what differs is "
    "run again in float64, and counts only beyond 1e-9 there. The first module whose output of a "
    "sample differs is named.",
    matters="Predictions change with the traffic: the same input gets another answer in another "
    "request, tests that run single samples prove nothing, and one user's data reach another's "
    "output. BatchNorm without running statistics does it (track_running_stats=False), a forward "
    "that puts a layer into training mode itself, or a mean over the batch.",
    remedy="Give the named module statistics that do not depend on the batch: "
    "track_running_stats=True and recalibration, no train() inside forward, or a batch-free norm.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 6; PyTorch issues 20967 and 44415",
)
def eval_depends_on_batch(found: Leakage, limits: Limits) -> Iterator[Found]:
    """Outputs in eval mode that change with the batch."""
    seen = found.dependence
    if seen is None or not seen.depends or seen.layer is None:
        return
    is_layer = seen.layer != "the output"
    where = f"it begins at {named(seen.layer)} ({seen.kind})" if is_layer else "no module shows it"
    yield Found(
        f"In eval mode the output of a sample depends on its batch: {_differs(seen)}; {where}.",
        (seen.layer,) if is_layer else (),
        {
            "alone": seen.alone,
            "other_mates": seen.other_mates,
            "position": seen.position,
            "tolerance": seen.tolerance,
        },
    )


@rule(
    "BN322",
    "layers-carry-mates",
    "info",
    Leakage,
    means="At these layers the normalised activation of a sample tells the class of its batch "
    "mates, read in the way in which it tells the sample's own in training batches of one class.",
    computed="At each layer a linear probe (logistic regression on the means of the positive and "
    "negative parts of each channel) learns the label from normalised activations in batches of "
    "one class; asked about held-out strangers, samples among mates of another class, it says "
    "the mates' class this often, the same samples in shuffled batches that often. Tested over "
    "all layers, family-wise 5% (Holm). Told only where the network's output follows the mates "
    "too (BN320, a warning): a probe alone may read a shifted activation as that of some class, "
    "in sound networks as well.",
    matters="BatchNorm lets each sample see the mean and the variance of its batch. Whether "
    "moments tell the label is a matter of the data (in batches of one class they nearly always "
    "do, the table shows it); whether the network carries it on as if it were the sample's own is "
    "learned from grouped batches (Wu 2021, section 6).",
    remedy="That of BN320: train anew with shuffled batches. The layers tell from where on the "
    "batch is read.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 6; Alain & Bengio 2017 (linear probes, "
    "arXiv:1610.01644)",
    thresholds=(
        Threshold("accuracy", GAIN.default, "Gain of accuracy, as in BN320.", same_as="BN320"),
        Threshold(
            "mates", STRANGE.default, "Strangers at the output, as in BN320.", same_as="BN320"
        ),
        Threshold(
            "probe",
            0.5,
            "Share of strangers, 0 to 1, read as their mates' class more than in shuffled batches: "
            "half of them. Layers of sound networks reach 0.34 with ten classes and 0.45 with two, "
            "for shifted activations fall near those of some class; the worst layers of networks "
            "trained on classes have 0.74 to 0.89 with ten and 0.59 to 0.73 with two.",
        ),
    ),
)
def layers_carry_mates(found: Leakage, limits: Limits) -> Iterator[Found]:
    """Layers whose probes read the mates' class from strangers."""
    from bnaudit.stats.significance import holm

    if not _reads_mates(found, limits):
        return
    probed = found.probed
    judged = [] if probed is None else [one for one in probed.layers if one.p_value is not None]
    beyond = holm([one.p_value or 0.0 for one in judged], LEVEL)
    carrying = [
        one
        for one, is_beyond in zip(judged, beyond, strict=True)
        if is_beyond and one.mates.difference >= limits["probe"]
    ]
    if probed is None or not carrying:
        return
    worst = max(carrying, key=lambda one: one.mates.difference)
    names = tuple(one.name for one in carrying)
    yield Found(
        f"{len(names)} of {plural(len(probed.layers), 'layer')} "
        f"{'carries' if len(names) == 1 else 'carry'} the class of the batch mates "
        f"({some_of(names)}): at {named(worst.name)} a probe reads it from "
        f"{_percent(worst.mates.after)} of strangers (in shuffled batches "
        f"{_percent(worst.mates.before)}), and their own from {_percent(worst.own.value)}.",
        names,
        {one.name: one.mates.difference for one in carrying},
    )


@rule(
    "BN323",
    "order-changes-outputs",
    "info",
    Leakage,
    means="Batches in the order of the files, or of the loader, give other outputs under "
    "mini-batch statistics than shuffled ones of the same samples.",
    computed="As BN320, for the order alone, in either direction; without labels by agreement "
    "with the deployed outputs. A warning where it is the order of a loader: BN303 tells from the "
    "data alone that its batches are no random draws, this tells what it does to the outputs.",
    matters="A loader that reads files in their order gives batches of one class or one recording. "
    "Training on them teaches the model the batch (BN320), and its moving averages forget all but "
    "the last class; statistics from such batches are those of a part of the data (Wu 2021, "
    "section 6).",
    remedy="Let the loader shuffle (DataLoader(..., shuffle=True)), also for recalibration with "
    "--method precise or ema.",
    source="Wu & Johnson 2021 (arXiv:2105.07576), section 6",
    thresholds=(GAIN,),
)
def order_changes_outputs(found: Leakage, limits: Limits) -> Iterator[Found]:
    """The data's own order differs from shuffled batches."""
    moved = [
        (size, one, change)
        for size, one in _significant(found)
        if one.by == "order"
        and (change := one.accuracy or one.agreement) is not None
        and abs(change.difference) >= limits["accuracy"]
    ]
    if not moved:
        return
    size, worst, change = max(moved, key=lambda triple: abs(triple[2].difference))
    what = "accuracy" if worst.accuracy is not None else "agreement with the deployed outputs"
    whose = "loader's" if found.loader_order else "files'"
    pure = ""
    if worst.purity is not None:
        pure = f"; {_percent(worst.purity)} of a batch is of its most frequent class"
        if worst.purity_shuffled is not None:
            pure += f" (shuffled {_percent(worst.purity_shuffled)})"
    yield Found(
        f"Batches of {size.size} in the {whose} order give {what} {_percent(change.after)}, "
        f"shuffled ones {_percent(change.before)} ({_points(change)}){pure}.",
        (),
        {str(one_size.size): one.difference for one_size, _, one in moved},
        severity="warning" if found.loader_order else None,
    )


def _significant(found: Leakage) -> list[tuple[SizeLeakage, Arrangement]]:
    """The arrangements that differ from shuffled batches, family-wise 5% over all of them."""
    from bnaudit.stats.significance import holm

    pairs = [
        (size, one) for size in found.sizes for one in size.arrangements if one.p_value is not None
    ]
    differ = holm([one.p_value or 0.0 for _, one in pairs], LEVEL)
    return [pair for pair, differs in zip(pairs, differ, strict=True) if differs]


def _gains(found: Leakage, limits: Limits) -> list[tuple[SizeLeakage, Arrangement]]:
    """The arrangements in which more is right than in shuffled batches."""
    return [pair for pair in _significant(found) if _gain(pair[1]) >= limits["accuracy"]]


def _strange(found: Leakage, limits: Limits) -> list[tuple[SizeLeakage, Strangers]]:
    """The strangers that follow their mates."""
    return [
        (one, one.strangers)
        for one in found.sizes
        if one.strangers is not None
        and one.strangers.p_value is not None
        and one.strangers.p_value <= LEVEL / len(found.sizes)
        and one.strangers.mates.difference >= limits["mates"]
    ]


def _reads_mates(found: Leakage, limits: Limits) -> bool:
    """Whether the output follows the class of the mates, which no domain explains."""
    worse = {size.size for size, one in _significant(found) if one.by == "class" and _gain(one) < 0}
    return bool(_strange(found, limits)) or any(
        one.by == "class" or (_mostly_of_one_class(one) and size.size not in worse)
        for size, one in _gains(found, limits)
    )


def _mostly_of_one_class(one: Arrangement) -> bool:
    """Whether these batches, in an order, are mostly of one class, as shuffled ones are not.

    Of two classes one has half of any batch: purity counts from that of shuffled batches.
    """
    if one.by != "order" or one.purity is None or one.purity_shuffled is None:
        return False
    return one.purity - one.purity_shuffled > MOSTLY * (1 - one.purity_shuffled)


def _gain(one: Arrangement) -> float:
    """Of accuracy; agreement says nothing of what is right."""
    return one.accuracy.difference if one.accuracy is not None else 0.0


def _grouped(one: Arrangement) -> str:
    words = {"class": "of one class", "source": "of one source", "order": "in the data's order"}
    return words.get(one.by, f"grouped by {one.by}")


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _points(change: Change) -> str:
    """`+46.1 points, 95% interval +43.5 to +48.8`."""
    said = f"{100 * change.difference:+.1f} points"
    if change.low is None or change.high is None:
        return said
    return f"{said}, 95% interval {100 * change.low:+.1f} to {100 * change.high:+.1f}"


def _differs(seen: Dependence) -> str:
    figures = (
        ("alone", seen.alone),
        ("with other mates", seen.other_mates),
        ("at another place", seen.position),
    )
    parts = [
        f"{how} it differs by {number(value)}"
        for how, value in figures
        if value is not None and value > seen.tolerance
    ]
    return f"{', '.join(parts)} (relative to the largest output)"
