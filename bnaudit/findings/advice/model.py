"""Remedies that change the model or its file, and no data."""

from __future__ import annotations

from collections.abc import Iterator

from bnaudit.findings.advice.case import Case
from bnaudit.findings.advice.suggestion import Standing, Suggestion

SETTINGS = ("BN003", "BN018", "BN019", "BN020", "BN204")
SAVED = ("BN005", "BN006", "BN009", "BN010", "BN016", "BN017", "BN052", "BN054", "BN055")
CHANNELS = ("BN012", "BN013", "BN015", "BN106")
OUTPUTS = ("BN205",)
GAMMA = ("BN014",)


def model(case: Case) -> Iterator[Suggestion]:
    """Mend the outputs, settings such as eps, what was saved, or single channels."""
    for name, title, codes, first, cost in (
        (
            "mend-the-outputs",
            "Find where the outputs stop being finite",
            OUTPUTS,
            OUTPUTS,
            "A search; until it is done no other figure of the network means anything.",
        ),
        (
            "mend-the-settings",
            "Set eps, momentum and tracking as in training",
            SETTINGS,
            ("BN003", "BN204"),
            "An argument of the model's constructor, then another measurement; no training.",
        ),
        (
            "save-anew",
            "Save the checkpoint anew with what it lacks",
            SAVED,
            ("BN006",),
            "A line in the script that saves; no training.",
        ),
        (
            "look-at-channels",
            "Look at single channels",
            CHANNELS,
            (),
            "Pruning or a larger eps, then a measurement of what it does.",
        ),
        (
            "decay-gamma-otherwise",
            "Decay gamma and beta otherwise",
            GAMMA,
            (),
            "Another training (bnaudit.nn.parameter_groups).",
        ),
    ):
        if case.has(*codes):
            grave = case.has(*first)
            standing = Standing.FIRST if grave else _otherwise(name, case, codes)
            yield Suggestion(name, title, standing, case.instructions(*codes), cost)


def _otherwise(name: str, case: Case, codes: tuple[str, ...]) -> Standing:
    if name == "decay-gamma-otherwise":
        return Standing.TRAINING
    severities = {f.severity for f in case.audit.findings if f.code in codes}
    return Standing.ASIDE if severities == {"info"} else Standing.POSSIBLE
