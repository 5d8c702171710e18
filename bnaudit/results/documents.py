"""Results as JSON documents, and back."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bnaudit.errors import InputError
from bnaudit.results.plain_json import parsed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def read_document(kind: type[T], text: str, *, schema: int, source: str, remedy: str) -> T:
    """The result of class `kind` that stands in a JSON document of this schema.

    Raises `InputError` that names `source` and the field at fault, also for figures that cannot be
    (`plausible`); `remedy` says what to do.
    """
    from pydantic import ValidationError

    from bnaudit.results.plausible import problems  # knows the classes that import this module

    try:
        document = parsed(text)
    except ValueError as error:
        raise InputError(f"{source}: not JSON as bnaudit writes it: {error}; {remedy}") from error
    name = f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
    if not isinstance(document, dict) or "schema" not in document:
        raise InputError(f"{source}: not {name} (no field `schema`): {remedy}")
    if document["schema"] != schema or isinstance(document["schema"], bool):
        raise InputError(
            f"{source}: schema {_short(document['schema'])}, this version reads {schema}: {remedy}"
        )
    document.pop("channels", None)  # of an Audit: too many for its document
    try:
        # Strictly, which JSON allows for: a number is a number here and no text or switch.
        result: T = _adapter(cast(Any, kind)).validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing" and len(first["loc"]) == 1:
            raise InputError(
                f"{source}: not {name} (field {where} is missing): {remedy}"
            ) from error
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        raise InputError(f"{source}: field {where}: {reason}") from error
    for where, reason in problems(result):
        raise InputError(f"{source}: field {where}: {reason}: damaged or made up; {remedy}")
    return result


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Building one takes longer than using it."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def write_document(schema: int, document: dict[str, Any]) -> str:
    """A document with its schema first, as JSON."""
    return json.dumps(finite({"schema": schema} | document), indent=1, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
