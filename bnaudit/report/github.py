"""A Gate on GitHub: annotations on the run, the summary of the step, and its output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bnaudit.errors import InputError
from bnaudit.report import judged
from bnaudit.report.judged import VERDICTS, printable
from bnaudit.report.markdown import Block, blocks
from bnaudit.results import Check, Gate

Level = Literal["error", "warning", "notice"]

MOST_ANNOTATIONS = 10
"""Of a level in a step: GitHub drops the others."""

LONGEST = 4000
"""Characters of an annotation: GitHub cuts a little later."""

LIMIT = 65_535
"""Characters of a text that GitHub shows; here of its bytes, which are never fewer."""

STEP_LIMIT = 1024 * 1024
"""Bytes of a step's summary, beyond which GitHub shows nothing of it at all."""

LEAST = 1000
"""Bytes that the verdict and the note about what was left out take at the most."""

_CUT = (
    "\n_Cut to GitHub's limit of 65,535 characters. All of it is in the log of this step, or in "
    "the file of `--report markdown=FILE`._\n"
)


class _Annotation(NamedTuple):
    level: Level
    title: str
    message: str


def workflow_commands(gate: Gate) -> str:
    """One workflow command a line: what fails as errors, first; then warnings; then notices."""
    found = [_of_check(check, gate) for check in gate.checks if check.outcome != "pass"]
    unused = [_Annotation("notice", "unused setting", line) for line in gate.unused_ignores]
    if not any(each.level == "error" for each in found):
        level: Level = "error" if gate.exit_code else "notice"
        found.insert(0, _Annotation(level, VERDICTS[gate.outcome], gate.sentence))
    lines: list[str] = []
    for level in ("error", "warning", "notice"):
        same = [each for each in (*found, *unused) if each.level == level]
        lines += [_command(each) for each in _folded(same)]
    return "".join(f"{line}\n" for line in lines)


def _of_check(check: Check, gate: Gate) -> _Annotation:
    makes_it_fail = check.outcome == "fail" or gate.outcome == "inconclusive"
    level: Level = "error" if makes_it_fail and gate.exit_code else "warning"
    parts = [check.sentence, judged.whom(check.layers), check.remedy, check.command]
    said = "\n".join(printable(part) for part in parts if part)
    word = "" if check.outcome == "fail" else f" ({check.outcome})"
    return _Annotation(level, judged.label(check) + word, said)


def _folded(found: Sequence[_Annotation]) -> Sequence[_Annotation]:
    """No more than GitHub shows: what is too many is named in the last one."""
    if len(found) <= MOST_ANNOTATIONS:
        return found
    shown, rest = found[: MOST_ANNOTATIONS - 1], found[MOST_ANNOTATIONS - 1 :]
    firsts = [each.message.partition("\n")[0] for each in rest]
    said = "\n".join(f"{each.title}: {line}" for each, line in zip(rest, firsts, strict=True))
    return [*shown, _Annotation(rest[0].level, f"and {len(rest)} more", said)]


def _command(each: _Annotation) -> str:
    message = each.message if len(each.message) <= LONGEST else each.message[: LONGEST - 1] + "…"
    title = _property(printable(f"bnaudit: {each.title}"))
    return f"::{each.level} title={title}::{_data(message)}"


def _data(said: str) -> str:
    """A message as GitHub's runner unescapes it."""
    clean = "\n".join(printable(line) for line in said.splitlines())
    return clean.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(said: str) -> str:
    return _data(said).replace(":", "%3A").replace(",", "%2C")


def summary(gate: Gate, limit: int = LIMIT) -> str:
    """The report in Markdown, what fails first, in fewer than `limit` bytes of UTF-8.

    What does not fit is left out by whole lines, with a note that says where to find it. The
    verdict is always there: `limit` is at least `LEAST`.
    """
    parts = blocks(gate)
    whole = "\n".join(map(str, parts))
    if _bytes(whole) < limit:
        return whole
    room = limit - _bytes(_CUT) - 1
    said = ""
    for part in parts:
        separator = "\n" if said else ""
        left = room - _bytes(said) - _bytes(separator)
        if _bytes(str(part)) <= left:
            said += f"{separator}{part}"
            continue
        said += _shortened(part, left, separator)
        break
    return (said or f"### bnaudit gate: {VERDICTS[gate.outcome]}\n") + _CUT


def _shortened(part: Block, room: int, separator: str) -> str:
    """As many of its lines as fit; nothing where that is none."""
    kept: list[str] = []
    used = _bytes(part.before) + _bytes(part.after)
    for line in part.lines:
        used += _bytes(line) + 1
        if used > room:
            break
        kept.append(line)
    return f"{separator}{Block(tuple(kept), part.before, part.after)}" if kept else ""


def append_summary(gate: Gate, path: Path) -> bool:
    """Add the summary to the file that `GITHUB_STEP_SUMMARY` names; False where it is full.

    What other commands of the step wrote counts: the whole stays below `LIMIT`, but for the verdict
    with the note of what was cut, which is added as long as GitHub shows the summary at all.
    Raises `InputError` where the file cannot be written.
    """
    try:
        there = path.read_bytes() if path.exists() else b""
        separator = "" if not there else "\n" if there.endswith(b"\n") else "\n\n"
        taken = len(there) + len(separator)
        if taken + LEAST > STEP_LIMIT:
            return False
        with path.open("a", encoding="utf-8") as file:
            file.write(separator + summary(gate, max(LIMIT - taken, LEAST)))
    except OSError as error:
        raise InputError(
            f"GITHUB_STEP_SUMMARY names {path}, which cannot be written ({error.strerror}): name "
            "a file that can, or unset it"
        ) from error
    return True


def append_outcome(gate: Gate, path: Path) -> None:
    """Add `outcome=pass`, `fail` or `inconclusive` to the file that `GITHUB_OUTPUT` names.

    Later steps tell by it what the exit code does not: whether too few data are what failed.
    Raises `InputError` where the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"outcome={gate.outcome}\n")
    except OSError as error:
        raise InputError(
            f"GITHUB_OUTPUT names {path}, which cannot be written ({error.strerror}): name a file "
            "that can, or unset it"
        ) from error


def _bytes(said: str) -> int:
    return len(said.encode("utf-8"))
