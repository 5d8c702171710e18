"""Which architectures of a library bnaudit measures and recalibrates: all of them are tried.

    python benchmarks/architectures.py                        # all of timm, into docs/
    python benchmarks/architectures.py --continue             # go on where a run was stopped
    python benchmarks/architectures.py --continue --limit-millions 400    # the larger ones as well
    python benchmarks/architectures.py --only 'resnet*'       # some of them, only printed

Each architecture is tried in a process of its own, whose memory and processor time are limited, so
that none can stop the others. Outcomes are kept in a file of JSON lines as they come.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from architecture_outcome import Cache, Failure, Outcome, Run, Stage
from architecture_page import page, versions
from architecture_trial import LIBRARIES, imported, names_of, try_architecture

ROOT = Path(__file__).resolve().parents[1]

PAGES = {"timm": ROOT / "docs" / "architectures.md"}
"""Where the page of a whole library is written unless told otherwise."""

PATIENCE = 10
"""On the clock a process may take so many times the processor time that it is allowed."""


class Worker:
    """A process that tries one architecture and tells how far it is."""

    def __init__(self, spec: str, run: Run) -> None:
        self._run = run
        self._known: tuple[Outcome, Stage | None] = (Outcome(spec.partition(":")[2]), "look")
        self._started = time.monotonic()
        self.connection, theirs = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")  # with what is imported here
        self._process = context.Process(target=_work, args=(spec, run, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def outcome(self) -> Outcome | None:
        """What it found, or why there is no more to it; None while it works."""
        try:
            while self.connection.poll():
                self._known = self.connection.recv()
        except EOFError:
            return self._ended()
        if time.monotonic() - self._started > PATIENCE * self._run.seconds:
            self.stop()
            return self._ended()
        return None

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    def _ended(self) -> Outcome:
        self._process.join()
        self.connection.close()
        outcome, stage = self._known
        if stage is None:
            return outcome
        if self._process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
            why = Failure(stage, f"took longer than {self._run.seconds:g} s", limited=True)
            return replace(outcome.with_failure(why), seconds=self._run.seconds)
        why = Failure(stage, f"the process ended with code {self._process.exitcode}")
        return outcome.with_failure(why)


def _work(spec: str, run: Run, connection: Connection) -> None:
    """In the worker: one thread, and no more time and memory than is allowed."""
    torch.set_num_threads(1)
    seconds, memory = math.ceil(run.seconds), int(run.gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    outcome = try_architecture(
        spec, lambda *known: connection.send(known), parameters=run.millions * 1e6
    )
    connection.send((replace(outcome, seconds=time.process_time()), None))


def try_all(run: Run, names: Sequence[str], workers: int) -> Iterator[Outcome]:
    """Each architecture's outcome as it comes, from so many processes at a time."""
    imported(run.library)  # here, not in each process
    left = list(reversed(names))
    working: list[Worker] = []
    try:
        while left or working:
            while left and len(working) < workers:
                working.append(Worker(f"{run.library}:{left.pop()}", run))
            wait([worker.connection for worker in working], timeout=1)
            for worker in list(working):
                outcome = worker.outcome()
                if outcome is not None:
                    working.remove(worker)
                    yield outcome
    finally:
        for worker in working:
            worker.stop()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that workers are stopped as well
    args = _arguments()
    run = Run(
        args.library,
        args.limit_seconds,
        args.limit_gigabytes,
        args.limit_millions,
        versions(args.library),
    )
    every = names_of(run.library)
    names = [name for name in every if fnmatchcase(name, args.only)]
    if not names:
        sys.exit(f"--only {args.only}: {run.library} has no such architecture")
    cache = Cache(args.cache or Path("bnaudit-results") / f"architectures-{run.library}.jsonl", run)
    known = {}
    if args.go_on:
        known = {one.name: one for one in cache.go_on()}
    else:
        cache.begin()
    left = [name for name in names if name not in known]
    for number, outcome in enumerate(try_all(run, left, args.workers), start=1):
        cache.add(outcome)
        known[outcome.name] = outcome
        if outcome.bn_layers or outcome.failures:
            print(f"{number:>5} of {len(left)}  {_in_words(outcome)}", flush=True)
    text = page(run, [known[name] for name in names], _command(args))
    print(text)
    output = args.output or (PAGES.get(run.library) if names == every else None)
    if output is not None:
        output.write_text(text, encoding="utf-8")
        print(f"written to {output}", file=sys.stderr)


def _in_words(outcome: Outcome) -> str:
    residual = "" if outcome.residual is None else f"residual {outcome.residual:.1e}"
    said = "; ".join(f"{failure.stage}: {failure.reason}" for failure in outcome.failures)
    return f"{outcome.name:<40} {outcome.seconds:>6.1f} s  {said or residual}"


def _command(args: argparse.Namespace) -> str:
    """What makes the same page again: the options that decide what is on it."""
    words = ["python benchmarks/architectures.py"]
    if args.library != "timm":
        words.append(f"--library {args.library}")
    if args.only != "*":
        words.append(f"--only '{args.only}'")
    words.append(
        f"--limit-seconds {args.limit_seconds:g} --limit-gigabytes {args.limit_gigabytes:g}"
    )
    return " ".join([*words, f"--limit-millions {args.limit_millions:g}"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", choices=LIBRARIES, default="timm")
    parser.add_argument("--only", metavar="GLOB", default="*", help="names that match")
    parser.add_argument("--limit-seconds", type=float, default=120, help="processor time of one")
    parser.add_argument("--limit-gigabytes", type=float, default=8, help="memory of one")
    parser.add_argument("--limit-millions", type=float, default=200, help="parameters of one")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--continue", dest="go_on", action="store_true")
    parser.add_argument("--cache", type=Path, help="the file of outcomes")
    parser.add_argument("--output", type=Path, help="the page; default: docs/architectures.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
