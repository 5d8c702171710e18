"""A command whose help stays readable: the `--no-…` form of a switch takes no column of its own."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

ON_BY_DEFAULT = ("plots",)
"""Switches whose `--no-…` form is the one that is used, and is shown."""


class Command(TyperCommand):
    """Hides in the help that every switch which is off by default can be switched off.

    That form only matters where a configuration file switches it on; `--config` says so.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help without those forms, which the parser knows all the same."""
        known = {option: getattr(option, "secondary_opts", []) for option in self.params}
        try:
            for option in self.params:
                if option.name not in ON_BY_DEFAULT:
                    option.secondary_opts = []
            super().format_help(ctx, formatter)
        finally:
            for option, forms in known.items():
                option.secondary_opts = forms
