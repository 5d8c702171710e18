"""The errors meant for the user: raised where the fact is known, caught once, by the CLI."""

from __future__ import annotations

from typing import Any


class BnauditError(Exception):
    """Base of every error that is the request's or the input's fault, told in one line.

    The message says what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with `exit_code`.
    """

    exit_code = 2


def one_line(error: BaseException) -> str:
    """`ValueError: reason`, the first line of it: how somebody else's exception is quoted."""
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


class InputError(BnauditError):
    """A file, an option or an argument that cannot be used as it is."""


class ModelError(BnauditError):
    """A model that cannot be audited, or that cannot take the data it was given."""


class NonFiniteError(BnauditError):
    """An activation that is NaN or infinite on its way into a BatchNorm layer.

    `layer` is the first such layer in call order, `batch` the number of the batch, from 0.
    """

    def __init__(self, message: str, *, layer: str, batch: int) -> None:
        super().__init__(message)
        self.layer = layer
        self.batch = batch

    def __reduce__(self) -> tuple[Any, ...]:
        return _non_finite, (type(self), str(self), self.layer, self.batch)


def _non_finite(kind: type[NonFiniteError], text: str, layer: str, batch: int) -> NonFiniteError:
    return kind(text, layer=layer, batch=batch)


class RankError(BnauditError):
    """Of several ranks of one job, another one failed, is gone, or keeps this one waiting.

    `gone`: the ranks that are not counted on any more: gone, absent or late.
    """

    def __init__(self, message: str, gone: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.gone = gone

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.gone)
