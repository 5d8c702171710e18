"""`config show`: the settings in force, with the thresholds of all findings. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnaudit.config import find_config, read_config, resolve
from bnaudit.config.in_force import THRESHOLDS, InForce, in_force
from bnaudit.config.lines import dotted
from bnaudit.findings.catalogue import all_rules
from bnaudit.findings.policy import Policy
from bnaudit.findings.rule import Rule, Threshold
from bnaudit.verbs.configured_codes import check_codes, check_reports
from bnaudit.verbs.policy import policy_of


@dataclass(frozen=True)
class Configuration:
    """What is in force in a folder.

    `file`: the configuration file that was read; None: there is none in `folder`.
    """

    folder: Path
    file: Path | None
    settings: tuple[InForce, ...]

    @property
    def set_in_file(self) -> tuple[InForce, ...]:
        """Without the defaults."""
        return tuple(setting for setting in self.settings if setting.source is not None)


def configuration(path: Path | None = None) -> Configuration:
    """The settings of the file at `path`, or of the one that is found in the current folder.

    Raises `InputError` for all that a verb would refuse in it.
    """
    found = find_config(Path()) if path is None else path
    file = None if found is None else read_config(found)
    settings = resolve({}, file)
    if file is not None:
        check_codes(file)
        check_reports(file, settings.gate.report)
    policy = policy_of(settings)
    every = tuple(_with_thresholds(in_force(settings, file), policy))
    return Configuration(Path.cwd(), found, every)


def _with_thresholds(settings: tuple[InForce, ...], policy: Policy) -> Iterator[InForce]:
    done = False
    for setting in settings:
        if not setting.key.startswith(THRESHOLDS):
            yield setting
        elif not done:
            yield from _thresholds(settings, policy)
            done = True


def _thresholds(settings: tuple[InForce, ...], policy: Policy) -> Iterator[InForce]:
    """A line a threshold of a finding, set or not; one that follows another's says so by value."""
    given = {setting.key: setting for setting in settings}
    for rule in all_rules():
        limits = policy.limits(rule)
        for threshold in rule.thresholds:
            keys = _keys(rule, threshold)
            source = next((given[key] for key in keys if key in given), None)
            key, value = keys[0], limits[threshold.name]
            if source is None:
                yield InForce(key, value)
            else:
                yield InForce(key, value, source.source, source.line)


def _keys(rule: Rule, threshold: Threshold) -> list[str]:
    """Where it may have been set: under its own code or name, or for the rule that it follows."""
    names = [rule.code, rule.name, *([threshold.same_as] if threshold.same_as else [])]
    return [dotted((THRESHOLDS, name, threshold.name)) for name in names]
