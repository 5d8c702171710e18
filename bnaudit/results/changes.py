"""Two Audits side by side: what changed from one to the other, with intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from bnaudit.results.audit import Audit
from bnaudit.results.documents import read_document, write_document
from bnaudit.results.findings import Finding

CHANGES_SCHEMA = 1

Figure = Literal["total_esm", "accuracy", "loss", "disagreement"]
"""The figures of the network that are compared: the root mean square of the output shift over the
layers; top-1 accuracy and mean cross-entropy under the estimates; the share of samples whose top-1
class differs between the estimates and mini-batch statistics."""


@dataclass(frozen=True)
class Difference:
    """A figure before and after; `difference` = after − before.

    `low`, `high`: its 95% interval. `surely_low`, `surely_high`: limits that hold for all figures
    of the comparison at once with 99% (Bonferroni). All four are None where they are withheld.
    """

    before: float
    after: float
    difference: float
    low: float | None = None
    high: float | None = None
    surely_low: float | None = None
    surely_high: float | None = None

    @property
    def significant(self) -> bool:
        """Whether it differs from 0 beyond noise, family-wise 1% over all figures compared."""
        if self.surely_low is None or self.surely_high is None:
            return False
        return self.surely_low > 0 or self.surely_high < 0


@dataclass(frozen=True)
class LayerChange:
    """One layer on both sides, matched by name, or else as `before_name` that was renamed.

    `output_shift` is what the gate judges, `total_shift` the unweighted ESM. Each is None where a
    side has no figure; `note` says why.
    """

    name: str
    before_name: str
    output_shift: Difference | None
    total_shift: Difference | None
    note: str | None = None


@dataclass(frozen=True)
class NetworkChange:
    """A figure of the whole network on both sides; accuracy and disagreement as shares (0 to 1)."""

    figure: Figure
    change: Difference


@dataclass(frozen=True)
class Uncompared:
    """A figure of the network that the Audit before has, and why there is nothing to compare."""

    figure: Figure
    reason: str


@dataclass(frozen=True)
class Side:
    """Which Audit stands on a side: where it was read from or measured, and on what."""

    source: str
    model: str
    checkpoint: str | None
    checkpoint_sha256: str | None
    data: str | None
    samples: int
    seed: int | None
    tool: str | None = None
    transform: str | None = None

    @classmethod
    def of(cls, audit: Audit, source: str) -> Side:
        """The side on which this Audit stands; `source`: where it is from."""
        return cls(
            source=source,
            model=audit.model.source,
            checkpoint=audit.model.checkpoint,
            checkpoint_sha256=audit.model.checkpoint_sha256,
            data=audit.data.source if audit.data else None,
            samples=audit.data.samples if audit.data else 0,
            seed=audit.data.seed if audit.data else None,
            tool=audit.versions.get("bnaudit"),
            transform=audit.data.transform if audit.data else None,
        )


@dataclass(frozen=True, repr=False)
class Changes:
    """From one Audit to another.

    `paired`: both measured the same samples in the same order, so that what they have in common
    cancels. `same_weights`: both are of the same part of the same file, in layers with the same
    settings, so that what changed are the data. `added`, `removed`: names of layers on one side
    only. `uncompared`: figures of the network that only the side before has. `gained`, `lost`:
    findings on one side only, by code and layers. `notes`: what makes the two less comparable.
    """

    before: Side
    after: Side
    paired: bool
    layers: tuple[LayerChange, ...]
    network: tuple[NetworkChange, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    same_weights: bool = False
    uncompared: tuple[Uncompared, ...] = ()
    gained: tuple[Finding, ...] = ()
    lost: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    schema: int = field(default=CHANGES_SCHEMA)

    @property
    def renamed(self) -> tuple[LayerChange, ...]:
        """The layers that have another name than before."""
        return tuple(layer for layer in self.layers if layer.name != layer.before_name)

    def __repr__(self) -> str:
        layers = sum(one.output_shift is not None for one in self.layers)
        moved = sum(
            one.output_shift is not None and one.output_shift.significant for one in self.layers
        )
        return (
            f"<Changes from {self.before.source} to {self.after.source}: {moved} of {layers} "
            f"layers beyond noise, {len(self.gained)} findings gained, {len(self.lost)} lost>"
        )

    def to_json(self) -> str:
        """The document `changes.json`."""
        return write_document(self.schema, asdict(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "changes") -> Changes:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        remedy = "compare anew: bnaudit compare"
        return read_document(cls, text, schema=CHANGES_SCHEMA, source=source, remedy=remedy)
