"""Codes of findings in a configuration file. No torch."""

from __future__ import annotations

from bnaudit.config import ConfigFile
from bnaudit.config.lines import Place
from bnaudit.errors import InputError
from bnaudit.findings.policy import Policy


def check_codes(file: ConfigFile) -> None:
    """That the findings which the file names exist. Raises `InputError` with the line."""
    for code, limits in file.values.get("thresholds", {}).items():
        _check(Policy(thresholds={code: limits}), file, ("thresholds", code))
    for code, severity in file.values.get("severity", {}).items():
        _check(Policy(severity={code: severity}), file, ("severity", code))
    for index, code in enumerate(_listed(file.values.get("select", []))):
        _check(Policy(select=(code,)), file, ("select", index))
    for index, code in enumerate(_listed(file.values.get("ignore", []))):
        _check(Policy(ignore=(code,)), file, ("ignore", index))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _check(policy: Policy, file: ConfigFile, place: Place) -> None:
    try:
        policy.checked()
    except InputError as error:
        where = place if place in file.lines else place[:1]
        raise InputError(f"{file.where(where)}: {error}") from None
