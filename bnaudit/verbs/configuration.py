"""`config show`: the settings in force, with the thresholds of all findings. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnaudit.config import find_config, read_config, resolve
from bnaudit.config.in_force import THRESHOLDS, InForce, in_force
from bnaudit.config.lines import dotted
from bnaudit.findings.catalogue import all_rules, find_rule
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
        """Without the defaults, and without what only follows another setting."""
        return tuple(s for s in self.settings if s.source is not None and s.follows is None)


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
    """A line a threshold of a finding, set or not; one that follows another's says so."""
    given = {setting.key: setting for setting in settings}
    for rule in all_rules():
        limits = policy.limits(rule)
        for threshold in rule.thresholds:
            own = [_key(name, threshold) for name in (rule.code, rule.name)]
            value = limits[threshold.name]
            source = next((given[key] for key in own if key in given), None)
            if source is not None:
                yield InForce(own[0], value, source.source, source.line)
            elif led := _leader(threshold):
                keys = [_key(name, threshold) for name in (led.code, led.name)]
                source = next((given[key] for key in keys if key in given), InForce("", value))
                followed = f"{led.code}.{threshold.name}"
                yield InForce(own[0], value, source.source, source.line, follows=followed)
            else:
                yield InForce(own[0], value)


def _key(rule: str, threshold: Threshold) -> str:
    return dotted((THRESHOLDS, rule, threshold.name))


def _leader(threshold: Threshold) -> Rule | None:
    """The rule whose threshold of the same name it follows, by code or name as that is set."""
    return find_rule(threshold.same_as) if threshold.same_as else None
