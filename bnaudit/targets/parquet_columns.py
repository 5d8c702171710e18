"""Which columns of a Parquet file are the images and their labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnaudit.errors import InputError
from bnaudit.targets.messages import did_you_mean

IMAGES = ("image", "img")
LABELS = ("label", "labels")
"""Names that are looked for; the first that is there counts."""


@dataclass(frozen=True)
class Columns:
    """`image`: as the file calls the column; `path`: the leaf with the bytes in it.

    `label` is None where there are no labels. `classes`: the labels' names, in the order of their
    numbers, where the file has them.
    """

    image: str
    path: str
    label: str | None
    classes: tuple[str, ...] | None


def find_columns(schema: Any, args: Mapping[str, object], *, where: str) -> Columns:
    """The columns of an Arrow schema that `image` and `label` of `args` name, or the usual ones.

    Images are binary, or a struct with a field `bytes`, as Hugging Face datasets write them; where
    no column has a usual name, the only one of such a type is taken. Labels are integers.

    InputError, which begins with `where`: no such column (the message names those there are), or
    one of another type.
    """
    image = _image(schema, args, where)
    label = _named(schema, args, "label", where) or _usual(schema, LABELS)
    if label is not None:
        _check_label(schema, label, where)
    path = image if _is_binary(schema.field(image).type) else f"{image}.bytes"
    return Columns(image, path, label, _classes(schema, label))


def _image(schema: Any, args: Mapping[str, object], where: str) -> str:
    name = _named(schema, args, "image", where) or _usual(schema, IMAGES)
    if name is not None:
        if _is_image(schema.field(name).type):
            return name
        raise InputError(
            f"{where}: column {name} is {schema.field(name).type}: images are encoded files, as "
            "binary or as a struct with a field `bytes`; name another with --data-arg image=COLUMN"
        )
    likely = [field.name for field in schema if _is_image(field.type)]
    if len(likely) == 1:
        return str(likely[0])
    raise InputError(
        f"{where}: no column is called {' or '.join(IMAGES)}: name that of the images with "
        f"--data-arg image=COLUMN; {_there_are(schema)}"
    )


def _named(schema: Any, args: Mapping[str, object], what: str, where: str) -> str | None:
    if what not in args:
        return None
    name = str(args[what])
    if name not in schema.names:
        hint = did_you_mean(name, schema.names)
        raise InputError(f"{where}: there is no column {name}; {_there_are(schema)}{hint}")
    return name


def _usual(schema: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in schema.names), None)


def _there_are(schema: Any) -> str:
    columns = [f"{field.name} ({field.type})" for field in schema]
    shown = ", ".join(column if len(column) <= 60 else f"{column[:60]}…" for column in columns[:8])
    more = f" and {len(columns) - 8} more" if len(columns) > 8 else ""
    return f"it has {shown or 'no columns'}{more}"


def _check_label(schema: Any, label: str, where: str) -> None:
    import pyarrow.types as kinds

    kind = schema.field(label).type
    if not kinds.is_integer(kind):
        raise InputError(
            f"{where}: column {label} is {kind}: labels are integers; name another with --data-arg "
            "label=COLUMN"
        )


def _is_image(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return any(kind.field(i).name == "bytes" and _is_binary(kind.field(i).type)
                   for i in range(kind.num_fields))  # fmt: skip
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def _classes(schema: Any, label: str | None) -> tuple[str, ...] | None:
    """The names that Hugging Face datasets keep in the file's metadata."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None
