"""Runs claims over seeds, in several processes, and keeps each seed's figures in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from reproduce.catalogue import CLAIMS
from reproduce.claim import Claim
from reproduce.side_by_side import SideBySide
from reproduce.zoo import Zoo, missing, train_side_by_side


@dataclass(frozen=True)
class SeedRun:
    """One seed of one claim: its figures, and the processor time that they took (seconds).

    A network that several claims use counts for the first of them.
    """

    claim: str
    seed: int
    seconds: float
    figures: Any


def run_all(
    claims: Sequence[Claim], seeds: int | None, first_seed: int, jobs: int, folder: Path
) -> Iterator[SeedRun]:
    """Run what `folder` does not hold yet, one seed a task, and yield what is done.

    `seeds` None: as many as each claim asks for.
    """
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=partial(torch.set_num_threads, 1)
    ) as pool:
        prepared = [
            pool.submit(train_side_by_side, kind, own_seeds, folder)
            for kind, own_seeds in _side_by_side(claims, seeds, first_seed)
            if missing(kind, own_seeds, folder)
        ]
        for training in as_completed(prepared):
            training.result()
        tasks = _tasks(claims, seeds, first_seed, folder)
        done = [pool.submit(run_seed, seed, keys, folder) for seed, keys in sorted(tasks.items())]
        for future in as_completed(done):
            yield from future.result()


def _side_by_side(
    claims: Sequence[Claim], seeds: int | None, first_seed: int
) -> list[tuple[SideBySide, range]]:
    """What is trained for all seeds at once, with the seeds."""
    kinds: dict[str, SideBySide] = {}
    most: dict[str, int] = {}
    for claim in claims:
        for kind in claim.prepares:
            kinds[kind.name] = kind
            most[kind.name] = max(seeds or claim.seeds, most.get(kind.name, 0))
    return [(kinds[name], range(first_seed, first_seed + most[name])) for name in kinds]


def _tasks(
    claims: Sequence[Claim], seeds: int | None, first_seed: int, folder: Path
) -> dict[int, list[str]]:
    """The claims that lack figures, by seed."""
    tasks: dict[int, list[str]] = {}
    for claim in claims:
        for seed in _seeds_of(claim, seeds, first_seed):
            if not _file(folder, claim.key, seed).exists():
                tasks.setdefault(seed, []).append(claim.key)
    return tasks


def run_seed(seed: int, keys: Iterable[str], folder: Path) -> list[SeedRun]:
    """Run these claims for one seed and write the figures of each as soon as it is done."""
    zoo, runs = Zoo(seed, folder), []
    for key in keys:
        began = time.process_time() + zoo.seconds
        figures = CLAIMS[key].run(zoo)
        run = SeedRun(key, seed, time.process_time() + zoo.seconds - began, figures)
        path = _file(folder, key, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(run)))
        print(f"seed {seed}, claim {key}: {run.seconds:.0f} s", flush=True)
        runs.append(run)
    return runs


def saved(claim: Claim, seeds: int | None, first_seed: int, folder: Path) -> list[SeedRun]:
    """What the folder holds of a claim, by seed; none beyond the seeds that are asked for."""
    files = [_file(folder, claim.key, seed) for seed in _seeds_of(claim, seeds, first_seed)]
    return [_read(claim, file) for file in files if file.exists()]


def _seeds_of(claim: Claim, seeds: int | None, first_seed: int) -> range:
    first = first_seed + claim.from_seed
    return range(first, first + (seeds or claim.seeds))


def _read(claim: Claim, file: Path) -> SeedRun:
    kept = SeedRun(**json.loads(file.read_text()))
    figures = TypeAdapter(claim.figures).validate_python(kept.figures)
    return SeedRun(kept.claim, kept.seed, kept.seconds, figures)


def _file(folder: Path, key: str, seed: int) -> Path:
    return folder / key / f"seed-{seed}.json"
