"""`domains` for what settings name: a checkpoint and data by domain in, statistics out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bnaudit.checkpoints.bank import check_bank, write_bank
from bnaudit.checkpoints.target import check_names
from bnaudit.config import Settings
from bnaudit.config.defaults import CALIBRATION_SAMPLES
from bnaudit.config.names import nearest
from bnaudit.errors import InputError
from bnaudit.regular_files import with_home
from bnaudit.results import Request
from bnaudit.results.domains import POOLED, Domains
from bnaudit.targets.transforms import build_transform
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.domains import check_names_of, split
from bnaudit.verbs.domains_bank import (
    bank_of,
    check_checkpoints,
    checkpoint_targets,
    write_checkpoints,
)
from bnaudit.verbs.domains_comparison import Halves, compare_domains
from bnaudit.verbs.domains_matrix import about_domain
from bnaudit.verbs.prepare import open_other_data, reader_for
from bnaudit.verbs.request import request_of
from bnaudit.verbs.sources import Source
from bnaudit.verbs.workbench import Workbench, prepared_workbench

DEFAULT_SAMPLES = CALIBRATION_SAMPLES
"""How many calibration samples of each domain the command line draws unless told otherwise."""


@dataclass(frozen=True)
class Outputs:
    """What is to be written beside the results: a bank, and a folder of checkpoints."""

    bank: Path | None = None
    checkpoints: Path | None = None
    overwrite: bool = False


def domains_file(
    settings: Settings, outputs: Outputs, *, progress: Bar, say: Callable[[str], None]
) -> tuple[Domains, list[Path]]:
    """Compare the domains that the settings name: the result, and the files written.

    Raises `InputError` for what cannot be read, used or written; before the work where it can.
    """
    names = list(settings.domain)
    _check(settings, names)
    targets = _targets(settings, outputs, names)
    first = names[0]
    bench = _bench(settings, first, progress, say)
    if targets and bench.weights is None:
        raise InputError("--write-checkpoints: needs the checkpoint's own state dict")
    halves = [_halves(settings, bench, name) for name in names]
    made = compare_domains(bench, halves)
    report, written = made.report, list[Path]()
    if outputs.bank is not None:
        write_bank(bank_of(made), outputs.bank, overwrite=outputs.overwrite)
        written.append(outputs.bank)
    if targets and bench.weights is not None and settings.checkpoint is not None:
        copies, notes = write_checkpoints(
            made,
            bench.weights,
            settings.checkpoint,
            targets,
            trust_pickle=settings.trust_pickle,
            overwrite=outputs.overwrite,
        )
        written += copies
        report = replace(
            report, notes=(*report.notes, *(f"--write-checkpoints: {note}" for note in notes))
        )
    return report, written


def _bench(settings: Settings, first: str, progress: Bar, say: Callable[[str], None]) -> Workbench:
    """The workbench with the first domain as its data; messages speak of the option it came by."""
    try:
        bench = prepared_workbench(_of(settings, first), DEFAULT_SAMPLES, progress, say)
    except InputError as error:
        said = str(error).replace(
            f"--data {settings.domain[first]}", f"--domain {first}={settings.domain[first]}"
        )
        raise InputError(said.replace("--data ", "--domain ")) from error
    return replace(bench, request=_request(settings))


def _check(settings: Settings, names: list[str]) -> None:
    """Everything that is said of domains is said of one that there is."""
    if not names:
        raise InputError(
            "no domain is named: give two or more, as --domain day=imagefolder:day --domain "
            "night=imagefolder:night"
        )
    check_names_of(names)
    for option, said in (
        ("--domain-transform", settings.domain_transform),
        ("--domain-arg", settings.domain_arg),
    ):
        for name in said:
            if name not in names:
                hint = nearest(name, names)
                raise InputError(f"{option} {name}: there is no domain of that name{hint}")


def _targets(settings: Settings, outputs: Outputs, names: list[str]) -> dict[str, Path]:
    """The checkpoints to write, by domain; everything that can be checked has been."""
    if outputs.bank is not None:
        check_bank(outputs.bank, overwrite=outputs.overwrite)
        if settings.checkpoint is not None and outputs.bank.parent.is_dir():
            check_names(
                settings.checkpoint, outputs.bank, overwrite=outputs.overwrite, with_sidecar=False
            )
    if outputs.checkpoints is None:
        return {}
    if settings.checkpoint is None:
        raise InputError("--write-checkpoints: there is no checkpoint to write copies of")
    all_of = [*names, POOLED] if len(names) > 1 else names
    targets = checkpoint_targets(settings.checkpoint, outputs.checkpoints, all_of)
    check_checkpoints(
        settings.checkpoint, outputs.checkpoints, targets, overwrite=outputs.overwrite
    )
    return targets


def _of(settings: Settings, name: str) -> Settings:
    """The settings as if the domain were the only data."""
    return settings.model_copy(
        update={
            "data": settings.domain[name],
            "data_arg": settings.data_arg | settings.domain_arg.get(name, {}),
            "transform": settings.domain_transform.get(name, settings.transform),
            "train_data": None,
        }
    )


def _halves(settings: Settings, bench: Workbench, name: str) -> Halves:
    """The data of a domain, split; those of the first are open already."""
    samples = None if settings.verify_samples == "all" else settings.verify_samples
    source = bench.data
    with about_domain(name):
        if name != next(iter(settings.domain)):
            source = _source(_of(settings, name), bench, name)
        halves = split(name, source, settings.verify_split, samples)
    return replace(halves, classes=_classes_in(settings.domain[name]))


def _classes_in(spec: str) -> tuple[str, ...] | None:
    """The classes of a folder of images; other data sets know their own, or nobody does."""
    scheme, _, place = spec.partition(":")
    if scheme != "imagefolder":
        return None
    inside = with_home(place).iterdir()
    found = sorted(one.name for one in inside if one.is_dir() and not one.name.startswith("."))
    return tuple(found) or None


def _source(settings: Settings, bench: Workbench, name: str) -> Source:
    assert settings.data is not None
    said = f"--domain {name}={settings.data}"
    transform = build_transform(settings.transform)
    target = open_other_data("--domain", settings.data, settings.data_arg, transform)
    count = None if settings.samples == "all" else settings.samples or DEFAULT_SAMPLES
    reader = reader_for(target, settings, bench.subject.conditions, count, said)
    return Source(reader, target.description, settings.transform)


def _request(settings: Settings) -> Request | None:
    """The options of this run, the domains in place of the data."""
    request = request_of(settings)
    if request is None:
        return None
    words = [
        word for name, spec in settings.domain.items() for word in ("--domain", f"{name}={spec}")
    ]
    for name, spec in settings.domain_transform.items():
        words += ["--domain-transform", f"{name}={spec}"]
    for key, value in settings.data_arg.items():
        words += ["--data-arg", f"{key}={value}"]
    for name, args in settings.domain_arg.items():
        words += [
            w for key, value in args.items() for w in ("--domain-arg", f"{name}.{key}={value}")
        ]
    return replace(request, data=tuple(words), train_data=())
