"""What a comparison of domains found: statistics of each domain on the data of each domain.

Plain frozen dataclasses <-> JSON; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnaudit.results.audit import DataInfo, ModelInfo, Request
from bnaudit.results.change import Change
from bnaudit.results.documents import read_document, write_document
from bnaudit.results.findings import Finding
from bnaudit.results.layers import Estimate
from bnaudit.results.scores import Figure, Scores
from bnaudit.results.sharing import Sharing

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINT = "checkpoint"
"""What the statistics that the model came with are called."""

POOLED = "pooled"
"""What the statistics of all domains together, in parts as equal as may be, are called."""

COMMON = (CHECKPOINT, POOLED)
"""Statistics that do not depend on the domain: no domain may have such a name."""

Level = Literal[
    "own",  # statistics of its own raise the accuracy of at least one domain, and lower none
    "some",  # they raise that of some domains and lower that of others
    "common",  # one set of statistics is as good, to within what is allowed
    "undecided",  # too few labelled samples to tell
    "alone",  # one domain: there is nothing to compare it with
    "unlabelled",  # no labels: what they do to the accuracy cannot be known
]

SCHEMA = 1


@dataclass(frozen=True)
class Domain:
    """One domain: the data its statistics were computed on, and those that took no part.

    `overlap`: verification samples left out because calibration data of any domain hold them too.
    `noise_floor`: the ESM that its statistics have by the number of samples alone, in the worst
    layer `noise_floor_layer`; None where there are too few to tell.
    """

    name: str
    calibration: DataInfo
    verification: DataInfo
    overlap: int = 0
    noise_floor: float | None = None
    noise_floor_layer: str | None = None


@dataclass(frozen=True)
class Against:
    """A cell against common statistics on the same samples; differences are cell − common.

    `only_common_correct`, `only_cell_correct`: the discordant pairs; `p_value`: McNemar's exact
    two-sided one. All None without labels, or where the outputs are no class scores.
    """

    statistics: str
    accuracy: Change | None = None
    loss: Change | None = None
    only_common_correct: int | None = None
    only_cell_correct: int | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Cell:
    """Statistics from `statistics` (a domain, `CHECKPOINT` or `POOLED`) on the data of `domain`.

    `shift`: the root mean square over layers of the debiased total ESM on the verification data,
    every layer normalising by these statistics.
    """

    statistics: str
    domain: str
    scores: Scores
    shift: float | None = None
    against: tuple[Against, ...] = ()

    def compared_with(self, statistics: str) -> Against | None:
        """This cell against those common statistics."""
        return next((one for one in self.against if one.statistics == statistics), None)


@dataclass(frozen=True)
class LayerDistance:
    """How far apart a layer's statistics are between domains, one estimate for each of
    `Domains.pairs`, in standard deviations and weighted by γ²; None where γ = 0 everywhere."""

    name: str
    channels: int
    distances: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class Gain:
    """What one set of statistics gives a domain against another, on the same samples.

    `significant`: McNemar's exact test, family-wise 5% over the domains (Holm). `samples_needed`:
    how many labelled samples would settle whether the loss or gain exceeds what is allowed.
    """

    domain: str
    accuracy: Change
    p_value: float
    significant: bool
    loss: Change | None = None
    samples_needed: int | None = None


@dataclass(frozen=True)
class Worth:
    """Whether statistics of its own for each domain are worth their trouble.

    `common`: the better one of the common statistics, `CHECKPOINT` or `POOLED`, by mean accuracy
    over the labelled domains; None without labels. `gains`: own statistics against those;
    `own_gains`, `pooled_gains`: own and pooled statistics against the checkpoint's. `margin`: the
    gain of accuracy (0 to 1) that does not count.
    """

    level: Level
    sentence: str
    margin: float
    common: str | None = None
    gains: tuple[Gain, ...] = ()
    own_gains: tuple[Gain, ...] = ()
    pooled_gains: tuple[Gain, ...] = ()


@dataclass(frozen=True)
class KeptLayer:
    """A layer that keeps the checkpoint's statistics in every domain."""

    name: str
    reason: str


@dataclass(frozen=True)
class Domains:
    """One comparison of domains.

    `cells`: by statistics (the checkpoint's, the pooled ones, each domain's), then by domain.
    `pairs` names the two domains of each distance in `layers`, which stand in call order.
    `bank_bytes`: what the statistics of all domains and the pooled ones take, `pooled_samples`
    how many samples those come from. `sharing`: where layers are called several times in a forward.
    """

    versions: dict[str, str]
    device: str
    dtype: str
    model: ModelInfo
    domains: tuple[Domain, ...]
    cells: tuple[Cell, ...]
    worth: Worth
    pairs: tuple[tuple[str, str], ...] = ()
    layers: tuple[LayerDistance, ...] = ()
    kept: tuple[KeptLayer, ...] = ()
    bank_bytes: int = 0
    pooled_samples: int = 0
    sharing: Sharing | None = None
    findings: tuple[Finding, ...] = ()
    request: Request | None = None
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def names(self) -> tuple[str, ...]:
        """The domains, in the order given."""
        return tuple(domain.name for domain in self.domains)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Whose statistics were tried, in the order of `cells`."""
        return tuple(dict.fromkeys(cell.statistics for cell in self.cells))

    def cell(self, statistics: str, domain: str) -> Cell:
        """The statistics of one on the data of the other. Raises `KeyError`."""
        for cell in self.cells:
            if (cell.statistics, cell.domain) == (statistics, domain):
                return cell
        raise KeyError((statistics, domain))

    def distance(self, first: str, second: str) -> float | None:
        """How far apart two domains are: the root mean square over layers, debiased."""
        pair = next(i for i, one in enumerate(self.pairs) if set(one) == {first, second})
        found = [layer.distances[pair] for layer in self.layers]
        squares = [one.value**2 for one in found if one is not None]
        return (sum(squares) / len(squares)) ** 0.5 if squares else None

    def farthest(self) -> list[tuple[LayerDistance, tuple[str, str], Estimate]]:
        """Each layer with the pair of domains that differ most in it, the largest first."""
        found = [
            (layer, pair, one)
            for layer in self.layers
            for pair, one in [_largest(self.pairs, layer)]
            if one is not None
        ]
        return sorted(found, key=lambda each: -each[2].value)

    def to_json(self) -> str:
        """As a JSON document."""
        return write_document(self.schema, asdict(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "domains") -> Domains:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        return read_document(
            cls, text, schema=SCHEMA, source=source, remedy="give what bnaudit domains wrote"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a cell, figures flattened (`accuracy`, `accuracy_low`, …)."""
        import pandas as pd

        return pd.DataFrame([_row(cell) for cell in self.cells])

    def layers_to_frame(self) -> pd.DataFrame:
        """One row a layer and pair of domains."""
        import pandas as pd

        return pd.DataFrame(list(_layer_rows(self)))

    def __repr__(self) -> str:
        return f"<Domains {', '.join(self.names)} of {self.model.source}: {self.worth.sentence}>"


def _largest(
    pairs: tuple[tuple[str, str], ...], layer: LayerDistance
) -> tuple[tuple[str, str], Estimate | None]:
    known = [(p, d) for p, d in zip(pairs, layer.distances, strict=True) if d is not None]
    if not known:
        return ("", ""), None
    return max(known, key=lambda one: one[1].value)


def _row(cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {"statistics": cell.statistics, "domain": cell.domain}
    row |= {"samples": cell.scores.samples, "labelled": cell.scores.labelled}
    for name in ("accuracy", "loss", "agreement", "kl"):
        figure: Figure | None = getattr(cell.scores, name)
        row[name] = figure.value if figure else None
        row[f"{name}_low"] = figure.low if figure else None
        row[f"{name}_high"] = figure.high if figure else None
    row |= {"relative_rms": cell.scores.relative_rms, "shift": cell.shift}
    for common in COMMON:
        against = cell.compared_with(common)
        for name in ("accuracy", "loss"):
            change: Change | None = getattr(against, name) if against else None
            row[f"{name}_from_{common}"] = change.difference if change else None
            row[f"{name}_from_{common}_low"] = change.low if change else None
            row[f"{name}_from_{common}_high"] = change.high if change else None
        row[f"p_value_from_{common}"] = against.p_value if against else None
    return row


def _layer_rows(result: Domains) -> Iterator[dict[str, Any]]:
    for layer in result.layers:
        for (first, second), one in zip(result.pairs, layer.distances, strict=True):
            row: dict[str, Any] = {"layer": layer.name, "channels": layer.channels}
            row |= {"first": first, "second": second}
            for name in ("value", "low", "high", "noise_floor"):
                row["distance" if name == "value" else name] = getattr(one, name, None)
            yield row
