"""`parquet:PATTERN`: encoded images and labels in the rows of Parquet files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnaudit.errors import InputError
from bnaudit.regular_files import regular_file
from bnaudit.targets.arrays import Transform
from bnaudit.targets.encoded import EncodedImages
from bnaudit.targets.messages import one_line
from bnaudit.targets.parquet_columns import Columns, find_columns
from bnaudit.targets.row_groups import KeptGroups, UnpackedGroups, kept
from bnaudit.targets.shards_pattern import shard_files

_MOST_FILES = 16
_NO_LABEL = -1


@dataclass(frozen=True)
class RowGroups:
    """The row groups of one file: how many rows each has, its columns, the bytes of its images."""

    file: Path
    rows: tuple[int, ...]
    columns: Columns
    image_bytes: int


class ParquetImages(EncodedImages):
    """Images in the rows of Parquet files, read in any order.

    A row is read with its row group, the smallest part that Parquet gives; `kept` keeps those that
    were read. `labels` int64 (n,), None where the rows have none; below 0 is no label.
    """

    def __init__(
        self,
        files: Sequence[RowGroups],
        labels: NDArray[np.int64] | None,
        transform: Transform | None,
        kept: KeptGroups,
    ) -> None:
        super().__init__(transform)
        self.labels = labels
        self._files = list(files)
        self._ends = np.cumsum([rows for file in files for rows in file.rows])
        self._first_group = np.cumsum([0, *(len(file.rows) for file in files)])
        self._first_row = np.cumsum([0, *(sum(file.rows) for file in files)])
        self._kept = kept
        self._open: dict[Path, Any] = {}
        self._process = os.getpid()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def encoded(self, index: int) -> bytes:
        """The bytes in the image column."""
        group = _part(self._ends, index) + 1
        row = index - int(self._ends[group - 1]) if group else index
        value = self._kept.value(group, row, partial(self._read, group))
        if value is None:
            raise ValueError("its image is null, or a path only")
        return value

    def label(self, index: int) -> int | None:
        """The number in the label column."""
        if self.labels is None:
            return None
        label = int(self.labels[index])
        if label < 0:
            raise ValueError(f"its label is {'null' if label == _NO_LABEL else label}, not a class")
        return label

    def source_of(self, index: int) -> str:
        """`file.parquet row 17`: the rows of a file count from 0."""
        file = _part(self._first_row, index)
        return f"{self._files[file].file} row {index - int(self._first_row[file])}"

    def _read(self, group: int) -> list[bytes | None]:
        """The images of a row group."""
        number = _part(self._first_group, group)
        columns = self._files[number].columns
        table = self._opened(self._files[number].file).read_row_group(
            group - int(self._first_group[number]), columns=[columns.path], use_threads=False
        )
        values = table.column(columns.image).to_pylist()
        return [value["bytes"] if isinstance(value, dict) else value for value in values]

    def _opened(self, file: Path) -> Any:
        from pyarrow.parquet import ParquetFile

        if self._process != os.getpid():  # a process that was forked opens its own
            self._open, self._process = {}, os.getpid()
        if file not in self._open:
            if len(self._open) >= _MOST_FILES:
                self._open.pop(next(iter(self._open))).close()
            self._open[file] = ParquetFile(file, pre_buffer=False)
        return self._open[file]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def _part(starts: NDArray[np.int64], index: int) -> int:
    """The last part that starts at `index` or before."""
    return int(np.searchsorted(starts, index, side="right")) - 1


def open_parquet(
    pattern: str, args: Mapping[str, object], transform: Transform | None, *, said: str
) -> tuple[ParquetImages, tuple[str, ...] | None, str]:
    """The images of the files that a pattern names, their classes, and what they are in words.

    `args`: `image` and `label`, the names of the columns (see `find_columns`). Rows whose labels
    are all null or -1, as in a test set whose labels are kept secret, have none.

    InputError, which begins with `said`: as `shard_files` and `find_columns`, no Parquet file, or
    no rows; and where pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{said}: reading Parquet needs pyarrow: pip install 'bnaudit[parquet]'"
        ) from error
    files = [_described(file, args, said) for file in shard_files(pattern, said=said)]
    rows = sum(sum(file.rows) for file in files)
    if rows == 0:
        raise InputError(
            f"{said}: not one row in {len(files)} Parquet file{'s' if files[1:] else ''}"
        )
    labels = _labels(files, said)
    classes = files[0].columns.classes if labels is not None else None
    groups = kept(sum(file.image_bytes for file in files))
    images = ParquetImages(files, labels, transform, groups)
    return images, classes, _words(files, rows, labels, groups)


def _described(file: Path, args: Mapping[str, object], said: str) -> RowGroups:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with regular_file(file), ParquetFile(file) as opened:
            meta = opened.metadata
            rows = tuple(meta.row_group(group).num_rows for group in range(meta.num_row_groups))
            schema = opened.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{said}: {file} cannot be read as Parquet: {one_line(error)}") from error
    columns = find_columns(schema, args, where=f"{said}: {file}")
    return RowGroups(file, rows, columns, _image_bytes(meta, columns))


def _image_bytes(meta: Any, columns: Columns) -> int:
    groups = map(meta.row_group, range(meta.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(meta.num_columns))
    return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == columns.path)


def _labels(files: Sequence[RowGroups], said: str) -> NDArray[np.int64] | None:
    """The labels of all rows; None where a file has no such column, or there is none in it."""
    without = [file.file for file in files if file.columns.label is None]
    if without and len(without) < len(files):
        raise InputError(f"{said}: {without[0]} has no label column, which others have")
    if without:
        return None
    found = np.concatenate([_labels_in(file, said) for file in files])
    return None if np.all(found == _NO_LABEL) else found


def _labels_in(file: RowGroups, said: str) -> NDArray[np.int64]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    label = str(file.columns.label)
    try:
        with ParquetFile(file.file) as opened:
            column = opened.read(columns=[label], use_threads=False).column(label)
            values = column.cast(pa.int64()).fill_null(_NO_LABEL).to_numpy()
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{said}: column {label} of {file.file} cannot be read: {one_line(error)}"
        ) from error
    return np.asarray(values, dtype=np.int64)


def _words(
    files: Sequence[RowGroups], rows: int, labels: NDArray[np.int64] | None, groups: KeptGroups
) -> str:
    count = sum(len(file.rows) for file in files)
    largest = max(rows for file in files for rows in file.rows)
    labelled = "" if labels is not None else " without labels"
    parts = f"{count} row groups of at most {largest} rows" if count > 1 else "one row group"
    where = ", unpacked into a temporary folder" if isinstance(groups, UnpackedGroups) else ""
    plural = "s" if len(files) > 1 else ""
    return f"{rows} images{labelled} in {len(files)} Parquet file{plural}, {parts}{where}"
