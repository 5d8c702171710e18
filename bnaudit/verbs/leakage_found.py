"""From samples in memory to what leaks between them: what command line and Python share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnaudit.engine.layers import BNLayer
from bnaudit.engine.trial import try_out
from bnaudit.engine.variants import adaptive
from bnaudit.errors import InputError
from bnaudit.findings.conclude import conclude
from bnaudit.results.leakage import Leakage, Probed, SizeLeakage
from bnaudit.stats.arrangements import Ints
from bnaudit.stats.probe import available
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.leakage_arrangements import deployed_scores, look_at_size
from bnaudit.verbs.leakage_dependence import depends_on_mates
from bnaudit.verbs.leakage_pass import Outcome, Runner
from bnaudit.verbs.leakage_pool import Pool, numbered, read_pool
from bnaudit.verbs.leakage_probe import FOLDS, LEAST_SIZE, probe_layers
from bnaudit.verbs.leakage_wanted import CLASS, DEFAULT_SIZE, ORDER, SOURCE, Wanted
from bnaudit.verbs.samples import MapReader
from bnaudit.verbs.sources import data_info
from bnaudit.verbs.workbench import Workbench


def leakage_with(bench: Workbench, wanted: Wanted) -> Leakage:
    """Look for leakage on a workbench."""
    subject, reader, progress = bench.subject, bench.data.reader, bench.progress
    layers, conditions = subject.layers, subject.conditions
    with progress("reading", reader.total, "samples") as advance:
        pool = read_pool(reader, wanted.functions, advance)
    groups, notes = groupings(pool, wanted)
    sizes = wanted.sizes(reader.pass_batch_size)
    for size in sizes:
        if 2 * size > pool.samples:
            raise InputError(
                f"{pool.samples} samples do not make two batches of {size}: give more --samples, "
                "or smaller --values"
            )
    with conditions.entered(subject.model):
        first = pool.batch(np.arange(min(pool.samples, 8)))
        trial = try_out(subject.model, layers, first, conditions)
        dependence = depends_on_mates(subject, pool)
        whole = reader.pass_batch_size or DEFAULT_SIZE
        # What normalises by the whole forward gets one mini-batch at a time.
        forward_size = 1 if trial.dependence else whole
        runs = _runs(groups, wanted.draws, sizes if adaptive(layers) else ())
        with progress("trying batches", runs * pool.samples, "samples") as advance:
            runner = Runner(subject, pool, bench.task, forward_size, advance)
            deployed = replace(runner, forward_size=whole).deployed()
            found = _at_sizes(runner, deployed, groups, sizes, wanted.draws, bench.seed)
        probed, said = _probed(runner, groups, sizes, wanted.draws, progress)
    labelled = pool.labels is not None
    result = Leakage(
        **bench.header(),
        data=data_info(
            reader, bench.data.name, pool.samples, bench.data.transform, labelled=labelled
        ),
        deployed=deployed_scores(deployed),
        sizes=found,
        dependence=dependence,
        probed=probed,
        batch_size=(wanted.train_batch_size or reader.pass_batch_size)
        if wanted.group_size
        else None,
        loader_order=not isinstance(reader, MapReader),
        notes=(*notes, *_about_model(layers, deployed, pool), *said),
    )
    return replace(result, findings=conclude((result,), bench.policy))


def groupings(pool: Pool, wanted: Wanted) -> tuple[dict[str, Ints | None], list[str]]:
    """(the group of each sample by name, None for the order; what was left out, and why).

    Raises `InputError` where what was asked for cannot be.
    """
    found: dict[str, Ints | None] = {}
    notes = []
    for name in wanted.by or (CLASS, SOURCE, ORDER):
        groups, reason = _grouping(pool, name)
        if reason is None:
            found[name] = groups
        elif wanted.by is not None:
            raise InputError(f"--by {name}: {reason}")
        else:
            notes.append(f"not grouped by {name}: {reason}")
    return found, notes


def _grouping(pool: Pool, name: str) -> tuple[Ints | None, str | None]:
    """(the groups, None; or why there are none)."""
    if name == ORDER:
        return None, None
    if name == CLASS:
        if pool.labels is None:
            return None, "the data have no class labels"
        groups = numbered([str(label) for label in pool.labels])
    elif name == SOURCE:
        if pool.folders is None:
            return None, "the samples are not from files (--by path/file.py:fn says where from)"
        groups = numbered(pool.folders)
        if pool.labels is not None and _same_groups(groups, pool.labels):
            return None, "each class is one folder, which is grouping by class"
    else:
        groups = pool.groups[name]
    counts = np.bincount(groups)
    if len(counts) < 2:
        return None, "all samples are in one group"
    if counts.max() < 2:
        return None, "every sample is a group of its own"
    return groups, None


def _same_groups(a: Ints, b: Ints) -> bool:
    pairs = len(np.unique(np.stack([a, b]), axis=1).T)
    return pairs == len(np.unique(a)) == len(np.unique(b))


def _runs(groups: dict[str, Ints | None], draws: int, sizes: tuple[int, ...]) -> int:
    """About how often every sample is run."""
    of_groups = sum(1 if one is None else draws for one in groups.values())
    strangers = draws if CLASS in groups else 0
    return 1 + len(sizes) * (draws + of_groups + strangers)


def _at_sizes(
    runner: Runner,
    deployed: Outcome,
    groups: dict[str, Ints | None],
    sizes: tuple[int, ...],
    draws: int,
    seed: int,
) -> tuple[SizeLeakage, ...]:
    if not adaptive(runner.subject.layers):
        return ()
    return tuple(look_at_size(runner, deployed, groups, size, draws, seed) for size in sizes)


def _probed(
    runner: Runner,
    groups: dict[str, Ints | None],
    sizes: tuple[int, ...],
    draws: int,
    progress: Bar,
) -> tuple[Probed | None, list[str]]:
    """(what the probes read, or why there are none)."""
    layers = adaptive(runner.subject.layers)
    if CLASS not in groups or not layers:
        return None, []
    if not available():
        return None, ["layers were not probed: pip install 'bnaudit[leakage]'"]
    with progress("probing", len(layers), "layers") as advance:
        quiet = replace(runner, progress=lambda samples: None)
        seed = runner.subject.conditions.seed
        probed = probe_layers(quiet, max(sizes), min(draws, 2), seed, advance)
    if probed is None:
        least = FOLDS * LEAST_SIZE
        return None, [
            f"layers were not probed: fewer than {least} samples of most classes (more --samples)"
        ]
    if probed.size < max(sizes):
        return probed, [
            f"layers were probed in batches of {probed.size}: classes are too small for "
            f"{max(sizes)} (more --samples)"
        ]
    return probed, []


def _about_model(layers: list[BNLayer], deployed: Outcome, pool: Pool) -> list[str]:
    notes = []
    if not layers:
        notes.append("the model has no BatchNorm layers")
    elif not adaptive(layers):
        notes.append(
            "no layer normalises by mini-batches in training: only eval mode was looked at"
        )
    if (deployed.predicted < 0).all():
        notes.append("the outputs are no class scores: arrangements cannot be compared by them")
    elif pool.labels is None:
        notes.append("the data have no labels: arrangements are compared by agreement alone")
    return notes
