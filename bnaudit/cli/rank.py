"""Which of the processes that a launcher started this is, by the environment alone."""

from __future__ import annotations

import os

from bnaudit.errors import InputError

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank_and_size() -> tuple[int, int]:
    """This process's rank, and how many there are; (0, 1) where no launcher says otherwise.

    Raises `InputError` where what it says is no number.
    """
    if not all(os.environ.get(name) for name in _NEEDED):
        return 0, 1
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except ValueError as error:
        raise InputError(f"RANK and WORLD_SIZE in the environment: {error}") from error


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    try:
        return rank_and_size()[0] == 0
    except InputError:
        return True
