"""The networks of one seed: what several claims need is trained once."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from reproduce.data import Images, digits
from reproduce.side_by_side import SideBySide


@dataclass
class Zoo:
    """Everything of one seed. Networks are handed out as copies, so that claims do not meet.

    `folder`: where `train_side_by_side` has put the networks that are trained for all seeds at
    once. `seconds`: of processor time that those networks took, of the ones asked for so far.
    """

    seed: int
    folder: Path | None = None
    train: Images = field(default_factory=lambda: digits("train"))
    verify: Images = field(default_factory=lambda: digits("verify"))
    test: Images = field(default_factory=lambda: digits("test"))
    seconds: float = 0.0
    _networks: dict[Hashable, nn.Module] = field(default_factory=dict, repr=False)

    def network(self, name: Hashable, train: Callable[[], nn.Module]) -> nn.Module:
        """The network called `name`, trained where this seed has not trained it yet."""
        if name not in self._networks:
            self._networks[name] = train()
        return copy.deepcopy(self._networks[name])

    def prepared(self, kind: SideBySide) -> nn.Module:
        """The network of this kind, trained here and now where no file holds it."""
        return self.network(kind.name, lambda: self._read(kind) or kind.train([self.seed])[0])

    def _read(self, kind: SideBySide) -> nn.Module | None:
        if self.folder is None or not _file(self.folder, kind, self.seed).exists():
            return None
        kept = torch.load(_file(self.folder, kind, self.seed), weights_only=True)
        self.seconds += kept["seconds"]
        network = kind.untrained()
        network.load_state_dict(kept["network"])
        return network


def missing(kind: SideBySide, seeds: Sequence[int], folder: Path) -> bool:
    """Whether `folder` lacks a seed of this kind."""
    return not all(_file(folder, kind, seed).exists() for seed in seeds)


def train_side_by_side(kind: SideBySide, seeds: Sequence[int], folder: Path) -> float:
    """Train one kind for all seeds and write a file for each; return the processor time."""
    began = time.process_time()
    networks = kind.train(seeds)
    seconds = time.process_time() - began
    for seed, network in zip(seeds, networks, strict=True):
        path = _file(folder, kind, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"network": network.state_dict(), "seconds": seconds / len(seeds)}, path)
    print(f"{kind.name}, {len(seeds)} seeds side by side: {seconds:.0f} s", flush=True)
    return seconds


def _file(folder: Path, kind: SideBySide, seed: int) -> Path:
    return folder / "networks" / kind.name / f"seed-{seed}.pt"
