"""A comparison of domains of parts that are in hand: statistics, matrix, distances, conclusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from bnaudit.checkpoints.bank import bank_dtype
from bnaudit.engine.layers import BNLayer
from bnaudit.engine.population import Statistics
from bnaudit.errors import InputError
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.conclude import conclude
from bnaudit.findings.domains_worth import worth
from bnaudit.findings.rules.domains import COMMON_CODE
from bnaudit.results.domains import CHECKPOINT, POOLED, Domain, Domains, KeptLayer
from bnaudit.verbs.domains_matrix import Column, about_domain, column
from bnaudit.verbs.domains_sharing import in_turn, shared_layers, sharing_of
from bnaudit.verbs.domains_statistics import layer_distances, pooled_source, worst_noise
from bnaudit.verbs.exact_statistics import ExactStatistics, exact_statistics
from bnaudit.verbs.mixing import own_statistics
from bnaudit.verbs.sources import Source
from bnaudit.verbs.verification import Unseen
from bnaudit.verbs.workbench import Workbench


@dataclass(frozen=True)
class Halves:
    """The data of one domain: what its statistics come from, and what took no part.

    `classes`: the labels' names, in the order of their numbers, where they are known.
    """

    name: str
    calibration: Source
    verification: Source
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Compared:
    """A comparison, and the statistics that it is about.

    `statistics`: by domain and for `POOLED`, every layer that changes in any of them, in call
    order; where a domain has nothing new for a layer, the checkpoint's.
    """

    report: Domains
    statistics: dict[str, dict[BNLayer, Statistics]]


def compare_domains(bench: Workbench, domains: Sequence[Halves]) -> Compared:
    """Compare the domains with one another, and with common statistics.

    Nothing is written into the model. Raises `InputError` for a single domain, unless layers are
    called several times in a forward: then what that costs is worth a look by itself.
    """
    subject = bench.subject
    policy = bench.policy.checked()
    _check_classes(domains)
    with subject.conditions.entered(subject.model):
        found: dict[str, ExactStatistics] = {}
        for domain in domains:
            with about_domain(domain.name):
                found[domain.name] = _statistics(bench, domain.calibration, domain.name)
            _check_alone(found, domains)
        if len(domains) > 1:
            pooled, unequal = pooled_source(list(found.values()))
            made = _statistics(bench, pooled, POOLED)
            found[POOLED] = replace(made, notes=(*unequal, *made.notes))
        statistics = _completed(bench, found)
        tried: dict[str, Mapping[BNLayer, Statistics]] = {CHECKPOINT: {}}
        if POOLED in statistics:
            tried[POOLED] = statistics[POOLED]
        tried |= statistics
        known: set[bytes] = set()
        for domain in domains:
            known |= found[domain.name].plan.batches.hashes
        columns = [column(bench, d.name, d.verification, tried, known) for d in domains]
        base = found[POOLED] if POOLED in found else found[domains[0].name]
        halves = [Unseen(domain.verification.reader, known) for domain in domains]
        samples = sum(one.info.samples for one in columns)
        sharing = sharing_of(bench, base, in_turn(halves), samples)
    names = [domain.name for domain in domains]
    cells = tuple(
        cell for whose in tried for one in columns for cell in one.cells if cell.statistics == whose
    )
    pairs = list(combinations(range(len(names)), 2))
    margin = policy.limits(find_rule(COMMON_CODE))["margin"]
    report = Domains(
        **bench.header(),
        domains=tuple(
            _described(domain, found[domain.name], one)
            for domain, one in zip(domains, columns, strict=True)
        ),
        cells=cells,
        worth=worth(names, cells, margin, classifier=any(one.classifier for one in columns)),
        pairs=tuple((names[i], names[j]) for i, j in pairs),
        layers=layer_distances(subject, [found[name] for name in names], pairs),
        kept=_kept(found, statistics),
        bank_bytes=_bytes(statistics),
        pooled_samples=found[POOLED].info.samples if POOLED in found else 0,
        sharing=sharing,
        notes=_notes(found, columns, names),
    )
    report = replace(report, findings=conclude((report,), policy))
    return Compared(report, statistics)


def _statistics(bench: Workbench, source: Source, what: str) -> ExactStatistics:
    return exact_statistics(
        bench, source, what=f"statistics: {what}", say=lambda line: bench.say(f"{what}: {line}")
    )


def _check_alone(found: Mapping[str, ExactStatistics], domains: Sequence[Halves]) -> None:
    if len(domains) > 1 or shared_layers(found.values()):
        return
    raise InputError(
        f"one domain, {domains[0].name}: there is nothing to compare it with; name two or more, or "
        "recalibrate on this one"
    )


def _completed(
    bench: Workbench, found: Mapping[str, ExactStatistics]
) -> dict[str, dict[BNLayer, Statistics]]:
    """All layers that change anywhere, in every set of statistics: none is left half applied."""
    own = own_statistics(bench.subject.layers)
    first = next(iter(found.values()))
    order = {name: rank for rank, name in enumerate(first.calls)}
    changed = dict.fromkeys(layer for one in found.values() for layer in one.statistics)
    ordered = sorted(changed, key=lambda layer: order.get(layer.name, len(order)))
    return {
        name: {layer: one.statistics.get(layer, own[layer]) for layer in ordered}
        for name, one in found.items()
    }


def _check_classes(domains: Sequence[Halves]) -> None:
    """Labels are numbers: they have to mean the same everywhere."""
    named = [
        (domain.name, classes)
        for domain in domains
        if (classes := domain.classes or classes_of(domain.verification)) is not None
    ]
    for name, classes in named[1:]:
        first, expected = named[0]
        if classes != expected:
            raise InputError(
                f"domain {name}: its classes are {_some(classes)}, those of domain {first} "
                f"{_some(expected)}: the same number would mean another class. Leave out the "
                "classes that not all have, or give a Dataset that numbers them alike "
                "(path/file.py:factory)"
            )


def classes_of(source: Source) -> tuple[str, ...] | None:
    """The names of the classes, where the data set has them: in the order of their numbers."""
    dataset: Any = getattr(source.reader, "dataset", None)
    while dataset is not None:
        classes = getattr(dataset, "classes", None)
        named = isinstance(classes, (list, tuple)) and all(isinstance(c, str) for c in classes)
        if classes and named:
            return tuple(classes)
        dataset = getattr(dataset, "dataset", None)
    return None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def _described(domain: Halves, found: ExactStatistics, one: Column) -> Domain:
    noise = worst_noise(found)
    floor, layer = noise if noise is not None else (None, None)
    return Domain(domain.name, found.info, one.info, one.overlap, floor, layer)


def _kept(
    found: Mapping[str, ExactStatistics], statistics: Mapping[str, Mapping[BNLayer, Statistics]]
) -> tuple[KeptLayer, ...]:
    changed = next(iter(statistics.values()))
    reasons = {
        layer.name: reason
        for one in found.values()
        for layer, reason in one.kept.items()
        if layer not in changed
    }
    return tuple(KeptLayer(name, reason) for name, reason in reasons.items())


def _bytes(statistics: Mapping[str, Mapping[BNLayer, Statistics]]) -> int:
    """What the means and variances of all sets take in a bank."""
    return sum(
        2 * layer.channels * bank_dtype(layer.estimated[1].dtype).itemsize
        for one in statistics.values()
        for layer in one
    )


def _notes(
    found: Mapping[str, ExactStatistics], columns: Sequence[Column], names: Sequence[str]
) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for name, one in found.items():
        for note in one.notes:
            said.setdefault(note, []).append(name)
    notes = [f"{', '.join(of)}: {note}" for note, of in said.items()]
    notes += [
        f"domain {name}: {one.overlap:,} verification samples left out: the calibration data of "
        "some domain hold the same"
        for name, one in zip(names, columns, strict=True)
        if one.overlap
    ]
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(found[name].info.fingerprint, []).append(name)
    notes += [
        f"domains {' and '.join(alike)} are the same samples: nothing can differ between them"
        for alike in same.values()
        if len(alike) > 1
    ]
    return (*notes, *_class_mix(columns))


MIXED_OTHERWISE = 0.001
"""A p-value of "all domains mix their classes alike" below which a reader has to know."""


def _class_mix(columns: Sequence[Column]) -> tuple[str, ...]:
    """Exact statistics follow the classes of the samples as well as their domain."""
    counts = [one.classes for one in columns if one.classes and one.classifier]
    classes = sorted(set().union(*counts)) if counts else []
    if len(counts) < 2 or len(classes) < 2:
        return ()
    from scipy import stats as scipy_stats

    table = [[one[label] for label in classes] for one in counts]
    p_value = float(scipy_stats.chi2_contingency(table).pvalue)
    if not p_value < MIXED_OTHERWISE:
        return ()
    return (
        f"the domains mix their classes in other shares (χ² test, p = {p_value:.1g}): statistics "
        "of their own follow the classes as well as the domain, and that can cost accuracy",
    )
