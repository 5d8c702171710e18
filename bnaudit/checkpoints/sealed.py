"""What a pickle may use and not alter."""

from __future__ import annotations

import pickle


class Sealed:
    """Refuses the state that a pickle gives to an object that it has made or been given."""

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a state for something that has none")
