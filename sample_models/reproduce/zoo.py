"""The networks of one seed: what several claims need is trained once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from torch import nn

from reproduce.data import Images, digits


@dataclass
class Zoo:
    """Everything of one seed. Networks are handed out as copies, so that claims do not meet."""

    seed: int
    train: Images = field(default_factory=lambda: digits("train"))
    verify: Images = field(default_factory=lambda: digits("verify"))
    test: Images = field(default_factory=lambda: digits("test"))
    _networks: dict[Hashable, nn.Module] = field(default_factory=dict, repr=False)

    def network(self, name: Hashable, train: Callable[[], nn.Module]) -> nn.Module:
        """The network called `name`, trained where this seed has not trained it yet."""
        if name not in self._networks:
            self._networks[name] = train()
        return copy.deepcopy(self._networks[name])
