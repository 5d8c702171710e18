"""The settings of a verb: its options over a configuration file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bnaudit.config import ConfigFile, Settings, find_config, read_config, resolve
from bnaudit.errors import InputError


def settings_from(options: dict[str, Any], config: Path | None, messages: Console) -> Settings:
    """Merge the command line over the file; a file that was found, not given, is named first.

    A configuration can point to Python files, which are run: so it is named before they are.
    """
    file: ConfigFile | None = None
    if config is not None:
        file = read_config(config)
    else:
        found = find_config(Path())
        if found is not None:
            file = read_config(found)
            messages.print(Text(f"using settings from {found}", style="dim"))
    settings = resolve(_parsed(options), file)
    if file is not None:
        from bnaudit.verbs.configured_codes import check_codes

        check_codes(file)
    from bnaudit.verbs.model_folder import completed

    return completed(settings)


def _parsed(options: dict[str, Any]) -> dict[str, Any]:
    parsed = dict(options)
    for name in ("model_arg", "data_arg", "verify_arg", "train_data_arg"):
        if parsed.get(name):
            from bnaudit.targets.factories import parse_args

            parsed[name] = parse_args(parsed[name], option="--" + name.replace("_", "-"))
        else:
            parsed[name] = None
    for name in ("layers", "select", "ignore", "against"):
        parsed[name] = parsed.get(name) or None
    parsed["thresholds"] = _thresholds(parsed.pop("threshold", None) or [])
    return parsed


def _thresholds(given: list[str]) -> dict[str, dict[str, float]] | None:
    """`BN101.shift=0.2` as {"BN101": {"shift": 0.2}}."""
    thresholds: dict[str, dict[str, float]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        code, dot, name = place.strip().partition(".")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (equals and dot and name and math.isfinite(number)):
            raise InputError(
                f"--threshold {text}: write CODE.NAME=NUMBER, such as BN101.shift=0.2 (bnaudit "
                "explain CODE names the thresholds)"
            )
        thresholds.setdefault(code.upper(), {})[name] = number
    return thresholds or None
