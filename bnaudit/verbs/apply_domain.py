"""`apply_domain`: the statistics of one domain from a bank into a model, and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from weakref import WeakSet

import torch
from torch import Tensor, nn

from bnaudit.checkpoints.bank import LEAVES, Bank, read_bank, statistics_in
from bnaudit.checkpoints.names import Match, match_names
from bnaudit.engine.layers import BNLayer, find_layers
from bnaudit.engine.wrappers import unwrap
from bnaudit.errors import InputError
from bnaudit.nn.example_weighing import ExampleWeighingBatchNorm

MOST_NAMED = 4

_NUMBERS = count()
_LIVE: WeakSet[AppliedDomain] = WeakSet()
"""Those that somebody can still revert: one whose handle is gone stands in nobody's way."""


class AppliedDomain:
    """Statistics of a domain in a model. `revert()`, or the end of a `with` block, undoes it.

    Where several are applied to one model, the last one has to be undone first.
    """

    def __init__(self, domain: str, changed: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.domain = domain
        self._before = [(buffer, buffer.detach().clone()) for buffer, _ in changed]
        _write(changed, self._before)
        self._applied = True
        self._number = next(_NUMBERS)
        _LIVE.add(self)

    @property
    def applied(self) -> bool:
        """Whether the model still has them, as far as this object knows."""
        return self._applied

    def revert(self) -> None:
        """Put back what the model had before, bit for bit. A second time does nothing.

        Raises `InputError` where another domain was applied since and is not reverted: what that
        one would put back are this domain's statistics.
        """
        if not self._applied:
            return
        later = self._later()
        if later is not None:
            raise InputError(
                f"domain {later.domain} was applied to this model after {self.domain}: revert "
                f"{later.domain} first"
            )
        _write(self._before, ())
        self._applied = False

    def _later(self) -> AppliedDomain | None:
        """The last one on any of the same tensors, if it is not this one."""
        mine = {id(buffer) for buffer, _ in self._before}
        later = [
            other
            for other in _LIVE
            if other.applied
            and other._number > self._number
            and any(id(buffer) in mine for buffer, _ in other._before)
        ]
        return max(later, key=lambda other: other._number, default=None)

    def __enter__(self) -> AppliedDomain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.revert()

    def __repr__(self) -> str:
        state = "applied" if self._applied else "reverted"
        return f"<statistics of domain {self.domain}, {state}>"


def apply_domain(model: nn.Module, bank: str | Path | Bank, domain: str) -> AppliedDomain:
    """Put the statistics of `domain` into the BatchNorm layers of `model`.

    Only `running_mean` and `running_var` change, in place: parameters, counters and modes stay as
    they are, and on a GPU the statistics are copied there. Wrappers are looked through, and a
    prefix (`module.`, `_orig_mod.`, `backbone.`) that the names have on one side only is matched.
    Either all layers of the bank get their statistics or none does.

    Args:
        model: the model that the bank was made for, in any mode, on any device.
        bank: a file that `bnaudit domains --bank` wrote, or one that `read_bank` has read: reading
            it once is faster where domains change often.
        domain: its name; "pooled" are the statistics of all domains together.

    Returns:
        What undoes it: `.revert()`, or use it as a context manager.

    Raises:
        InputError: no such file or domain (the message lists the domains), or the layers, their
            sizes or their eps are not the bank's.

    Example:
        >>> with bnaudit.apply_domain(model, "domains.safetensors", "night"):  # doctest: +SKIP
        ...     scores = model(images)
    """
    if not isinstance(bank, Bank):
        bank = read_bank(Path(bank))
    wanted = statistics_in(bank, domain)
    layers = [one for one in find_layers(unwrap(model)) if _takes_statistics(one)]
    found = {
        f"{layer}.{leaf}": value
        for layer, pair in wanted.items()
        for leaf, value in zip(LEAVES, pair, strict=True)
    }
    own = {
        f"{name}.{leaf}": buffer
        for layer in layers
        for name in (layer.name, *layer.aliases)
        for leaf, buffer in zip(LEAVES, layer.estimated, strict=True)
    }
    match = match_names(found, own)
    _check_names(match, bank)
    changed = []
    for layer in layers:
        _check_eps(layer, match, bank)
        for leaf, buffer in zip(LEAVES, layer.estimated, strict=True):
            value = match.tensors.get(f"{layer.name}.{leaf}")
            if value is not None:
                changed.append((buffer, _as(buffer, value, layer, domain)))
    return AppliedDomain(domain, changed)


def _takes_statistics(layer: BNLayer) -> bool:
    """Whether it normalises by estimates, alone or, as one of `bnaudit.nn`, with something else."""
    if isinstance(layer.module, ExampleWeighingBatchNorm):
        return isinstance(layer.module.running_mean, Tensor)
    return layer.role == "estimated"


def _check_names(match: Match, bank: Bank) -> None:
    """Everything in the bank has its place, and all the model's layers theirs."""
    kept = {match.renaming.of(f"{layer}.{leaf}") for layer in bank.kept for leaf in LEAVES}
    missing = [name for name in match.missing if name not in kept]
    said = []
    if match.unexpected:
        said.append(f"not in the model: {_some(match.unexpected)}")
    if match.mismatched:
        sizes = [
            f"{one.name} has {one.found[0]} channels in the bank, {list(one.expected)} in the model"
            for one in match.mismatched
        ]
        said.append("; ".join(sizes[:MOST_NAMED]))
    if missing:
        said.append(f"not in the bank: {_some(missing)}")
    if said:
        of = f" (it was made for {bank.model})" if bank.model else ""
        raise InputError(f"the bank does not fit the model: {'; '.join(said)}{of}")


def _check_eps(layer: BNLayer, match: Match, bank: Bank) -> None:
    source = match.sources.get(f"{layer.name}.running_mean")
    eps = bank.eps.get(source.removesuffix(".running_mean")) if source else None
    # A tenth of a percent: float32 keeps 1e-3 and the like less exactly than that.
    if eps is None or layer.eps is None or abs(eps - layer.eps) <= 1e-3 * max(eps, layer.eps):
        return
    raise InputError(
        f"layer {layer.name} has eps {layer.eps:g}, the bank's statistics were made with {eps:g}: "
        "give the model that the bank was made for"
    )


def _as(buffer: Tensor, value: Tensor, layer: BNLayer, domain: str) -> Tensor:
    """In the dtype and shape, and on the device, of the model's own."""
    cast = value.to(buffer.dtype).to(buffer.device).reshape(buffer.shape)
    if not bool(cast.isfinite().all()):
        raise InputError(
            f"layer {layer.name}: its statistics of domain {domain} are not finite as "
            f"{str(buffer.dtype).removeprefix('torch.')}; keep BatchNorm in float32"
        )
    return cast


def _write(values: Sequence[tuple[Tensor, Tensor]], undo: Sequence[tuple[Tensor, Tensor]]) -> None:
    """All of them, or none where one fails."""
    with torch.no_grad():
        try:
            for buffer, value in values:
                buffer.copy_(value)
        except BaseException:
            for buffer, value in undo:
                buffer.copy_(value)
            raise


def _some(names: Sequence[str]) -> str:
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    more = len(layers) - MOST_NAMED
    return ", ".join(layers[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
