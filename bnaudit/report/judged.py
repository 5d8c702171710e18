"""What every form of the gate's report says in the same words: what was judged, and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bnaudit.report.tables import some
from bnaudit.results import Check, Finding, Gate, Outcome, Side, Waived

VERDICTS: dict[Outcome, str] = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE"}

KINDS = {
    "measurement": "measurement",
    "finding": "findings",
    "limit": "limits",
    "regression": "against the baseline",
}
"""The kinds of checks, in the order in which a reader asks."""

UNTIL_THEN = {
    "baseline": "it stands in the baseline already",
    "same weights": "the weights are those of the baseline",
    "accepted": "accepted by the baseline that was written",
    "tolerance": "no figure that it rests on got worse beyond tolerance and noise",
}
"""Why a finding is waived where no setting says so by name."""

MOST_LAYERS = 4


def printable(text: str) -> str:
    r"""`text` on one line, what is no printable character as `\x1b` or the like.

    Names and sentences come from files, and must not reach a terminal, a log or a parser as
    commands, nor a file as a lone surrogate, which UTF-8 cannot hold.
    """
    return "".join(
        char if char.isprintable() else " " if char.isspace() else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def about(gate: Gate) -> list[tuple[str, str]]:
    """What was judged, each as a word and what it was: checkpoint, model, data, baseline."""
    side = gate.subject
    rows = [("checkpoint", checkpoint(side) if side.checkpoint else "")]
    if side.source not in (side.checkpoint, side.model):
        rows.append(("measured in", side.source))
    rows += [("model", side.model), ("data", data(side))]
    if gate.changes is not None:
        how = "the same samples" if gate.changes.paired else "other samples"
        before = gate.changes.before
        of = checkpoint(before)
        source = "" if before.source in (before.checkpoint, of) else f"{before.source}: "
        rows.append(("baseline", f"{source}{of}; {how}"))
    return [(word, printable(text)) for word, text in rows if text]


def checkpoint(side: Side) -> str:
    """`ckpt.pth (sha256 0123456789ab)`, or where the figures come from."""
    if side.checkpoint is None:
        return side.source
    sha = f" (sha256 {side.checkpoint_sha256[:12]})" if side.checkpoint_sha256 else ""
    return f"{side.checkpoint}{sha}"


def data(side: Side) -> str:
    """`npz:val.npz: 2,000 samples, seed 0`; empty where no data were used."""
    if side.data is None:
        return ""
    seed = f", seed {side.seed}" if side.seed is not None else ""
    samples = f": {side.samples:,} samples" if side.samples else ""
    return f"{side.data}{samples}{seed}"


def label(check: Check) -> str:
    """`BN101 estimation-shift`, `max_layer_esm: output shift of a layer at most 0.1`."""
    if check.name == check.title:
        return printable(check.name)
    separator = " " if check.kind == "finding" else ": "
    return printable(f"{check.name}{separator}{check.title}")


def whom(layers: Sequence[str], most: int = MOST_LAYERS) -> str:
    """`3 layers: a, b and c`, cut after `most`; empty for none."""
    if not layers:
        return ""
    count = f"{len(layers)} layers: " if len(layers) > 1 else ""
    return printable(count + some(layers, most))


def passed(gate: Gate) -> list[str]:
    """A line for each check that passed, with its figures."""
    checks = gate.with_outcome("pass")
    return [printable(f"passed {check.name}: {check.sentence}") for check in checks]


def reason(waived: Waived) -> str:
    """Why a finding does not count."""
    return printable(UNTIL_THEN.get(waived.setting, f"ignored by {waived.setting}"))


def named(finding: Finding) -> str:
    """`BN101 estimation-shift (a, b and 3 more)`."""
    where = f" ({some(finding.layers, MOST_LAYERS)})" if finding.layers else ""
    return printable(f"{finding.code} {finding.name}{where}")


def others(gate: Gate) -> str | None:
    """One line for the findings that are not grave enough, or were not selected."""
    if not gate.findings:
        return None
    codes = Counter(f"{finding.code} {finding.name}" for finding in gate.findings)
    said = ", ".join(f"{name} (×{n})" if n > 1 else name for name, n in codes.items())
    verb = "does" if len(gate.findings) == 1 else "do"
    return printable(f"{_count(len(gate.findings), 'finding')} that {verb} not count: {said}")


def moved_layers(gate: Gate) -> list[str]:
    """A line each for layers of another name than in the baseline, for new and for missing ones."""
    changes = gate.changes
    if changes is None:
        return []
    lines = []
    if changes.renamed:
        pairs = [f"{layer.before_name} → {layer.name}" for layer in changes.renamed]
        lines.append(f"{_count(len(pairs), 'layer')} renamed: {some(pairs)}")
    if changes.added:
        lines.append(f"{_count(len(changes.added), 'layer')} added: {some(changes.added)}")
    if changes.removed:
        lines.append(f"{_count(len(changes.removed), 'layer')} removed: {some(changes.removed)}")
    notes = [f"{layer.name} ({layer.note})" for layer in changes.layers if layer.note]
    if notes:
        lines.append(f"{_count(len(notes), 'layer')} to look at: {some(notes)}")
    return [printable(line) for line in lines]


def notes(gate: Gate) -> list[str]:
    """Those of the gate and of the comparison, each once."""
    both = (*gate.notes, *(gate.changes.notes if gate.changes is not None else ()))
    return [printable(note) for note in dict.fromkeys(both)]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
