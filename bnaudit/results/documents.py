"""Results as JSON documents, and back."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

from bnaudit.errors import InputError

T = TypeVar("T")


def read_document(kind: type[T], text: str, *, schema: int, source: str, remedy: str) -> T:
    """The result of class `kind` that stands in a JSON document of this schema.

    Raises `InputError` that names `source` and the field at fault; `remedy` says what to do.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not JSON ({error})") from error
    if not isinstance(document, dict) or "schema" not in document:
        raise InputError(f"{source}: not an {kind.__name__} (no field `schema`): {remedy}")
    if document["schema"] != schema or document["schema"] is True:
        raise InputError(
            f"{source}: schema {document['schema']!r}, this version reads {schema}: {remedy}"
        )
    document.pop("channels", None)  # of an Audit: too many for its document
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{source}: field {where}: {first['msg']}") from error


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
