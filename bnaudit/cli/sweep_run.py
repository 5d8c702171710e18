"""What every sweep's command does: resolve the settings, sweep, write, print."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from bnaudit.config import Settings
    from bnaudit.results.sweep import Kind

NO_SETTINGS = ("config", "json")


def run_sweep(
    kind: Kind, given: dict[str, Any], values: str | None, draws: int | None = None
) -> None:
    """Run the sweep of this kind with the options as given, `values` as text."""
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from

    messages, as_json = screen.messages(), given["json"]
    general = {name: value for name, value in given.items() if name not in NO_SETTINGS}
    settings = _consistent(settings_from(general, given["config"], messages), given)

    from bnaudit.verbs.sweep_values import parsed_values

    wanted = parsed_values(kind, values) if values is not None else None
    folder = settings.output
    if folder is None and not as_json:
        name = settings.checkpoint.stem if settings.checkpoint else "model"
        folder = Path("bnaudit-results") / name

    from bnaudit.report.files import check_folder
    from bnaudit.report.sweep import print_sweep
    from bnaudit.report.sweep_files import write_sweep
    from bnaudit.verbs.policy import policy_of

    policy_of(settings)  # what it cannot be is told before the work
    if folder is not None:
        check_folder(folder)
    with messages.status("loading") if messages.is_terminal else screen.quiet():
        from bnaudit.verbs.sweep_file import sweep_file
    result = sweep_file(
        kind,
        settings,
        wanted,
        draws=draws,
        progress=partial(screen.progress, messages),
        say=partial(screen.say, messages),
    )
    written = write_sweep(result, folder, plots=settings.plots) if folder is not None else []
    if as_json:
        typer.echo(result.to_json(), nl=False)
    if not as_json or messages.is_terminal:
        console = messages if as_json else screen.tables()
        print_sweep(result, console)
        screen.print_written(console, written)


def _consistent(settings: Settings, given: dict[str, Any]) -> Settings:
    """Held-out data of their own or a share: the command line wins over the file, not over itself.

    Raises `InputError` for options that exclude each other.
    """
    from bnaudit.errors import InputError

    if "verify" not in given:
        return settings
    if given["verify_arg"] and settings.verify is None:
        raise InputError(
            f"--verify-arg {given['verify_arg'][0]}: is for --verify, which is missing"
        )
    if settings.verify is None or settings.verify_split is None:
        return settings
    if (given["verify"] is None) == (given["verify_split"] is None):
        raise InputError(
            f"--verify {settings.verify} and --verify-split {settings.verify_split:g} exclude each "
            "other: give data of their own, or a share of --data"
        )
    if given["verify"] is None:
        return settings.model_copy(update={"verify": None, "verify_arg": {}})
    return settings.model_copy(update={"verify_split": None})
