"""Commands that share most of their options: said once, in a function that only has a signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

General = Mapping[str, Any]
"""The shared options as they were given, by name."""


def with_options_of(
    *templates: Callable[..., None],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of the `templates`, in their order, before and after its own.

    The decorated function takes `general`, a mapping of all options of the templates, and its own
    options as keywords; the command line sees one function with all of them. The options of the
    first template stand before the command's own, those of the others behind.
    """
    parts = [inspect.signature(template, eval_str=True).parameters for template in templates]
    shared = {name: parameter for part in parts for name, parameter in part.items()}

    def shares(command: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(command, eval_str=True).parameters
        own = {name: one for name, one in parameters.items() if name != "general"}

        def run(**given: Any) -> None:
            command({name: given[name] for name in shared}, **{name: given[name] for name in own})

        after = {name: one for part in parts[1:] for name, one in part.items()}
        ordered = [*parts[0].values(), *own.values(), *after.values()]
        keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in ordered]
        run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in keywords}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return shares
