"""Codes of findings, and what is said of them, in a configuration file. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from bnaudit.config import ConfigFile, GateSettings, nearest
from bnaudit.config.lines import Place
from bnaudit.errors import InputError
from bnaudit.findings.gate.ignores import EVERYTHING, LAYER_CHECKS, Ignores
from bnaudit.findings.policy import Policy


def check_codes(file: ConfigFile) -> None:
    """That the findings, thresholds and forms of reports which the file names exist.

    The types of the values are known to be right. Raises `InputError` with the line.
    """
    for code, limits in file.values.get("thresholds", {}).items():
        _check(Policy(thresholds={code: {}}).checked, file, ("thresholds", code))
        for name, value in limits.items():
            policy = Policy(thresholds={code: {name: value}})
            _check(policy.checked, file, ("thresholds", code, name))
    for code, severity in file.values.get("severity", {}).items():
        _check(Policy(severity={code: severity}).checked, file, ("severity", code))
    for index, code in enumerate(_listed(file.values.get("select", []))):
        _check(Policy(select=(code,)).checked, file, ("select", index))
    for index, code in enumerate(_listed(file.values.get("ignore", []))):
        _check(Policy(ignore=(code,)).checked, file, ("ignore", index))
    _check_gate(file, file.values.get("gate", {}))


def _check_gate(file: ConfigFile, gate: dict[str, Any]) -> None:
    for name in ("select", "ignore"):
        for index, code in enumerate(_listed(gate.get(name, []))):
            settings = GateSettings.model_validate({name: [code]})
            _check(partial(Ignores, settings, ()), file, ("gate", name, index))
    for glob, names in gate.get("per_layer_ignores", {}).items():
        for index, name in enumerate(names):
            place = ("gate", "per_layer_ignores", glob, index)
            _check(partial(_check_of_layer, glob, name), file, place)
    for index, said in enumerate(_listed(gate.get("report", []))):
        _check(partial(_check_form, said), file, ("gate", "report", index))


def _check_of_layer(glob: str, name: str) -> None:
    try:
        Ignores(GateSettings(per_layer_ignores={glob: (name,)}), ())
    except InputError as error:
        checks = (EVERYTHING, *LAYER_CHECKS)
        if close := get_close_matches(name, checks, n=1):
            said = f"{name}: no such code or check; did you mean {close[0]!r}?"
            raise InputError(f"gate.per_layer_ignores {glob!r}: {said}") from None
        raise InputError(f"{error}; the checks are {', '.join(checks)}") from None


def check_reports(file: ConfigFile, reports: Sequence[str]) -> None:
    """That the gate can write its reports, `reports` as it takes them. Raises `InputError`."""
    from bnaudit.report.gate_files import parse_reports

    for index, said in enumerate(reports):
        _check(partial(parse_reports, [said]), file, ("gate", "report", index))
    _check(partial(parse_reports, reports), file, ("gate", "report"))


def _check_form(said: str) -> None:
    """The form alone: whether the place can be written only concerns a run of the gate."""
    from bnaudit.report.gate_files import FORMATS

    kind, equals, path = said.partition("=")
    if not (equals and path.strip()):
        forms = ", ".join(FORMATS)
        raise InputError(f"gate.report {said}: write KIND=PATH, such as junit=gate.xml ({forms})")
    if kind.strip() not in FORMATS:
        raise InputError(f"gate.report {said}: no such form{nearest(kind.strip(), FORMATS)}")


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _check(check: Callable[[], object], file: ConfigFile, place: Place) -> None:
    try:
        check()
    except InputError as error:
        while place not in file.lines and len(place) > 1:
            place = place[:-1]
        raise InputError(f"{file.where(place)}: {error}") from None
