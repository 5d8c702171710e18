"""The per-channel arrays of an Audit, which are too many for its JSON document."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from bnaudit.errors import InputError


@dataclass(frozen=True)
class ChannelTable:
    """Per-channel arrays of all audited layers, one after another.

    `names` (L,) and `offsets` (L + 1,): layer i owns the entries offsets[i] to offsets[i+1] of the
    other arrays, each (ΣC,) float64: the estimated and the expected (biased) statistics, γ, and
    the shift d of each channel (NaN where undefined).
    """

    names: np.ndarray
    offsets: np.ndarray
    estimated_mean: np.ndarray
    estimated_var: np.ndarray
    expected_mean: np.ndarray
    expected_var: np.ndarray
    gamma: np.ndarray
    shift: np.ndarray

    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012 - read by pydantic

    def layer(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one layer, each (C,), by name of the array."""
        index = self.names.tolist().index(name)
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return {key: getattr(self, key)[part] for key in _CHANNEL_ARRAYS}

    def save(self, path: Path) -> None:
        """Write as a compressed `.npz` with the field names as keys."""
        arrays = {key: getattr(self, key) for key in ("names", "offsets", *_CHANNEL_ARRAYS)}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> ChannelTable:
        """Read what `save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{key: file[key] for key in ("names", "offsets", *_CHANNEL_ARRAYS)})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise InputError(
                f"{path}: not the per-channel arrays of an Audit, or damaged: measure anew, or "
                "remove it"
            ) from error


_CHANNEL_ARRAYS = (
    "estimated_mean",
    "estimated_var",
    "expected_mean",
    "expected_var",
    "gamma",
    "shift",
)
