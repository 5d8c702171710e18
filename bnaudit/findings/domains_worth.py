"""Whether statistics of its own for each domain are worth their trouble, from the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bnaudit.results.domains import CHECKPOINT, COMMON, POOLED, Against, Cell, Gain, Level, Worth
from bnaudit.stats.paired import samples_to_settle

SIGNIFICANCE = 0.05

NAMES = {CHECKPOINT: "the checkpoint's", POOLED: "the pooled ones"}

MOST_NAMED = 6

Table = Mapping[tuple[str, str], Cell]


def worth(
    names: Sequence[str], cells: Sequence[Cell], margin: float, *, classifier: bool = True
) -> Worth:
    """The conclusion, in at most three sentences.

    A domain's own statistics are compared with the better common ones (the checkpoint's or the
    pooled ones, by mean accuracy over the domains). They pay where McNemar's exact test says so,
    family-wise at `SIGNIFICANCE` over the domains (Holm). Common statistics are as good where the
    upper limits of all gains stay below `margin`. `classifier`: whether the outputs are class
    scores.

    Which common ones are better is chosen on these very samples, which speaks for them: gains of
    the own ones are harder to find, losses and that there is no gain easier. With three kinds of
    statistics that are equally good (1 to 3 domains of 250 or 1,000 samples, simulated 4,000
    times) a loss is found in 2.5 to 4.4% of the cases, against 1.4 to 2.4% were they given.
    """
    table = {(cell.statistics, cell.domain): cell for cell in cells}
    labelled = [name for name in names if table[name, name].scores.accuracy is not None]
    if not labelled:
        return Worth("unlabelled", _unlabelled(names, table, classifier=classifier), margin)
    common = _better_common(labelled, table)
    gains = _gains([table[name, name] for name in labelled], common, margin)
    own_gains = _gains([table[name, name] for name in labelled], CHECKPOINT, margin)
    pooled = [table[POOLED, name] for name in labelled if (POOLED, name) in table]
    pooled_gains = _gains(pooled, CHECKPOINT, margin)
    level = _level(gains, margin) if len(names) > 1 else "alone"
    sentence = _sentence(level, gains, common, margin)
    if common == POOLED:
        sentence += _against_checkpoint(level, own_gains, pooled_gains)
    without = [name for name in names if name not in labelled]
    if without:
        sentence += f" Nothing is known of the accuracy on {_listed(without)}: no labels."
    return Worth(level, sentence, margin, common, gains, own_gains, pooled_gains)


def _better_common(labelled: Sequence[str], table: Table) -> str:
    """The common statistics of higher mean accuracy; the checkpoint's, which exist, on a tie."""

    def mean(common: str) -> float:
        found = [table[common, name].scores.accuracy for name in labelled]
        return sum(one.value for one in found if one is not None) / len(found)

    known = [common for common in COMMON if (common, labelled[0]) in table]
    return max(known, key=mean)


def _gains(cells: Sequence[Cell], common: str, margin: float) -> tuple[Gain, ...]:
    """What the statistics of these cells give against the common ones."""
    from bnaudit.stats.significance import holm

    found = [(cell, cell.compared_with(common)) for cell in cells]
    known = [
        (cell, one, one.accuracy, one.p_value)
        for cell, one in found
        if one is not None and one.accuracy is not None and one.p_value is not None
    ]
    certain = holm([p_value for *_, p_value in known], SIGNIFICANCE)
    return tuple(
        Gain(
            cell.domain,
            accuracy,
            p_value,
            significant,
            one.loss,
            _to_settle(one, cell.scores.labelled, margin),
        )
        for (cell, one, accuracy, p_value), significant in zip(known, certain, strict=True)
    )


def _to_settle(one: Against, labelled: int, margin: float) -> int | None:
    """How many samples would tell whether the gain exceeds the margin."""
    if one.only_cell_correct is None or one.only_common_correct is None or not labelled:
        return None
    # A gain of the cell is a loss of the common statistics: the sides change places.
    return samples_to_settle(one.only_cell_correct, one.only_common_correct, labelled, margin)


def _level(gains: Sequence[Gain], margin: float) -> Level:
    better = any(gain.significant and gain.accuracy.difference > 0 for gain in gains)
    worse = any(gain.significant and gain.accuracy.difference < 0 for gain in gains)
    if better:
        return "some" if worse else "own"
    if all(gain.accuracy.high is not None and gain.accuracy.high <= margin for gain in gains):
        return "common"
    return "undecided"


def _sentence(level: Level, gains: Sequence[Gain], common: str, margin: float) -> str:
    better = [one for one in gains if one.significant and one.accuracy.difference > 0]
    worse = [one for one in gains if one.significant and one.accuracy.difference < 0]
    against = f"against {NAMES[common]}"
    if level == "alone":
        return (
            f"One domain, so there is nothing to compare it with; exact statistics of its own "
            f"{against}: {_figures(gains)}."
        )
    if level == "own":
        others = [one for one in gains if one not in better]
        rest = f" {_no_difference(others)}" if others else ""
        return f"Statistics of their own pay {against}: {_figures(better)}.{rest}"
    if level == "some":
        return (
            f"Statistics of their own pay {against} for some domains and not for others: "
            f"{_figures(better)}; worse: {_figures(worse)}."
        )
    hurt = f" They are worse for {_figures(worse)}." if worse else ""
    if level == "common":
        return (
            f"One set of statistics will do: a gain of more than {in_points(margin)} by "
            f"statistics of its own {against} is ruled out for every domain.{hurt}"
        )
    possible = [one for one in gains if one.accuracy.high is None or one.accuracy.high > margin]
    needed = [one.samples_needed for one in possible if one.samples_needed is not None]
    more = f" About {max(needed):,} labelled samples a domain would tell." if needed else ""
    return (
        f"Undecided: statistics of their own {against} show no significant gain, and one of more "
        f"than {in_points(margin)} is not ruled out: {_figures(possible)}.{hurt}{more}"
    )


def in_points(share: float) -> str:
    """`1 point`, `0.5 points`."""
    return f"{100 * share:g} point" + ("" if 100 * share == 1 else "s")


def _against_checkpoint(level: Level, own: Sequence[Gain], pooled: Sequence[Gain]) -> str:
    """What is gained over the statistics that are in the checkpoint now."""
    pay = level in ("own", "some")
    better = [
        one for one in (own if pay else pooled) if one.significant and one.accuracy.difference > 0
    ]
    if not better:
        return ""
    which = "Own" if pay else "The pooled"
    return f" {which} statistics against the checkpoint's: {_figures(better)}."


def _no_difference(gains: Sequence[Gain]) -> str:
    return f"No significant difference on {_listed([one.domain for one in gains])}."


def _figures(gains: Sequence[Gain]) -> str:
    """`night +12.3 points (95% interval +9.1 to +15.6)`, a domain after the other."""
    shown = sorted(gains, key=lambda one: -abs(one.accuracy.difference))[:MOST_NAMED]
    said = [_one(gain) for gain in shown]
    more = len(gains) - len(shown)
    return ", ".join(said) + (f" and {more} more" if more else "")


def _one(gain: Gain) -> str:
    change = gain.accuracy
    said = f"{gain.domain} {100 * change.difference:+.1f} points"
    if change.low is None or change.high is None:
        return said
    return f"{said} (95% interval {100 * change.low:+.1f} to {100 * change.high:+.1f})"


def _unlabelled(names: Sequence[str], table: Table, *, classifier: bool) -> str:
    """What is known without labels, and what cannot be."""
    missing = "labels" if classifier else "class scores with labels"
    moved = []
    for name in names:
        cell = table[name, name]
        before = table[CHECKPOINT, name].shift
        if before is not None and cell.shift is not None:
            moved.append(f"{name} {before:.2f} to {cell.shift:.2f}{_outputs(cell)}")
    fits = "Their fit" if any(_rose(table, name) for name in names) else "They fit better"
    fit = f"{fits}: layer shift of {', '.join(moved[:MOST_NAMED])}. " if moved else ""
    return (
        f"Without {missing} it cannot be known whether statistics of its own raise a domain's "
        f"accuracy. {fit}A better fit is no proof."
    )


def _rose(table: Table, name: str) -> bool:
    own, before = table[name, name].shift, table[CHECKPOINT, name].shift
    return own is not None and before is not None and own >= before


def _outputs(cell: Cell) -> str:
    if cell.scores.agreement is not None:
        return f" ({cell.scores.agreement.value:.0%} of the top-1 classes stay)"
    if cell.scores.relative_rms is not None:
        return f" (outputs move by {cell.scores.relative_rms:.2g}, relative RMS)"
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
