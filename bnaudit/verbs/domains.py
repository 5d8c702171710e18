"""`domains`: whether each domain of the data needs statistics of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from torch import nn

from bnaudit.checkpoints.bank import check_bank, is_domain_name, write_bank
from bnaudit.config.defaults import SPLIT
from bnaudit.errors import InputError
from bnaudit.results.domains import COMMON, Domains
from bnaudit.verbs.domains_bank import bank_of
from bnaudit.verbs.domains_comparison import Halves, compare_domains
from bnaudit.verbs.domains_matrix import about_domain
from bnaudit.verbs.samples import check_positive
from bnaudit.verbs.sources import Source
from bnaudit.verbs.workbench import Data, RunOptions, source_of, workbench


def domains(
    model: nn.Module,
    data: Mapping[str, Data],
    *,
    verify: Mapping[str, Data] | None = None,
    verify_split: float | None = None,
    verify_samples: int | None = None,
    bank: str | Path | None = None,
    overwrite: bool = False,
    **options: Unpack[RunOptions],
) -> Domains:
    """Compare domains: statistics of each one on the data of each one.

    Exact statistics are computed on a half of each domain's data, and of all domains together, in
    parts as equal as may be ("pooled"). The other halves are run under all of them and the model's
    own, the same samples each time: accuracy and loss (with labels), agreement, KL and layer shift;
    whether statistics of its own pay for a domain is tested against the better common ones. The
    model is not changed: write a `bank` and use `apply_domain`. Wu & Johnson 2021, section 5; AdaBN
    (Li et al. 2016).

    Args:
        model: any eager module, in any mode and on any device; wrappers are looked through.
        data: by the domain's name (letters, digits, `_ . + -`; not "pooled" or "checkpoint"): a
            map-style Dataset, or any iterable of batches, as for `measure`.
        verify: the same, for verification, instead of a part of `data`: for all domains.
        verify_split: the share of each domain's data that is kept for verification (default 0.5).
        verify_samples: at most so many samples a domain are verified on; None takes all.
        bank: a `.safetensors` file to write: the statistics of all domains.
        overwrite: whether an existing file may be replaced.
        options: as for all verbs of the toolbox (`RunOptions`); `samples` is the number of
            calibration samples a domain.

    Returns:
        The result: `.worth.sentence` is the conclusion, `.to_frame()` has a row a cell.

    Raises:
        InputError: the domains, the data or the arguments do not fit; names the domain.
        ModelError: the model has no BatchNorm layer, or cannot take the data.
        NonFiniteError: an activation is NaN or infinite; names the domain and the layer.

    Example:
        >>> result = bnaudit.domains(model, {"day": day, "night": night})  # doctest: +SKIP
        >>> result.worth.level, result.cell("day", "night").scores.accuracy  # doctest: +SKIP
    """
    for what, given in (("data", data), ("verify", verify)):
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f'{what} is a {type(given).__name__}: give a dict, {{"day": data, …}}')
    check_names_of(list(data))
    check_positive("verify_samples", verify_samples)
    if verify is not None and verify_split is not None:
        raise InputError("give verify or verify_split, not both")
    if verify is not None and set(verify) != set(data):
        raise InputError(
            f"verify has the domains {', '.join(verify)}, data has {', '.join(data)}: give the same"
        )
    target = Path(bank) if bank is not None else None
    if target is not None:
        check_bank(target, overwrite=overwrite)
    bench = workbench(model, (), **options)
    conditions = bench.subject.conditions
    theirs: RunOptions = {**options, "samples": verify_samples}
    halves = []
    for name, one in data.items():
        with about_domain(name):
            source = source_of(one, conditions, **options)
            if verify is None:
                halves.append(split(name, source, verify_split, verify_samples))
            else:
                halves.append(Halves(name, source, source_of(verify[name], conditions, **theirs)))
    made = compare_domains(bench, halves)
    if target is not None:
        write_bank(bank_of(made), target, overwrite=overwrite)
    return made.report


def check_names_of(names: list[str]) -> None:
    """Raises `InputError` for names that no domain may have, or where there is none."""
    if not names:
        raise InputError("no domain is named: give data for two or more")
    for name in names:
        if name in COMMON:
            raise InputError(f"domain {name}: is what other statistics are called; rename it")
        if not isinstance(name, str) or not is_domain_name(name):
            raise InputError(
                f"domain {name!r}: a name has letters, digits and _ . + -, begins with one of the "
                "first three, and is at most 64 characters long; rename it"
            )


def split(name: str, source: Source, share: float | None, verify_samples: int | None) -> Halves:
    """The data of a domain in two."""
    mine, others = source.split(SPLIT if share is None else share, verify_samples)
    return Halves(name, mine, others)
