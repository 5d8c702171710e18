"""Whether samples learn from their batch mates: what `leakage` found.

Plain frozen dataclasses <-> JSON; nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnaudit.results.audit import DataInfo, ModelInfo, Request
from bnaudit.results.change import Change
from bnaudit.results.documents import read_document, write_document
from bnaudit.results.findings import Finding
from bnaudit.results.scores import Figure, Scores

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


@dataclass(frozen=True)
class Arrangement:
    """The network under mini-batch statistics, in batches that belong together.

    `by`: "class", "source", "order", or the function that named the groups. `groups`: how many
    there are, None for an order. `purity`: the share of a batch that its most frequent group has
    (for an order: its most frequent label), on average, 0 to 1; None where nothing is known of
    it. `purity_shuffled`: the same of shuffled batches of this size. `batches`: in a draw.
    `samples`: those compared, which have a place in both arrangements. Each change is from
    shuffled batches of the same size: of accuracy (0 to 1), loss (nats), and agreement with the
    deployed outputs (0 to 1). `p_value`: of "the same accuracy" (without labels: the same
    agreement), two-sided.
    """

    by: str
    groups: int | None
    purity: float | None
    batches: int
    draws: int
    samples: int
    accuracy: Change | None = None
    loss: Change | None = None
    agreement: Change | None = None
    p_value: float | None = None
    purity_shuffled: float | None = None


@dataclass(frozen=True)
class Strangers:
    """Samples among mates of one other class: what the network says of them.

    `samples`: strangers, over all draws. `own`: the share that gets its own class. `mates`: the
    share that gets the class of its mates (after), against how often the same samples get that
    class in shuffled batches (before). `p_value`: one-sided, of "no more than there".
    """

    samples: int
    own: Figure
    mates: Change
    p_value: float | None = None


@dataclass(frozen=True)
class SizeLeakage:
    """One normalisation batch size: shuffled batches, and the arrangements against them.

    `shuffled`: means over draws. `flips`: the share of samples whose top-1 class differs from one
    shuffle to another, for their mates alone. `kept`: layers that kept their estimates, for a
    batch gives them a single value per channel.
    """

    size: int
    shuffled: Scores
    draws: int
    flips: Figure | None = None
    arrangements: tuple[Arrangement, ...] = ()
    strangers: Strangers | None = None
    kept: tuple[str, ...] = ()

    def arrangement(self, by: str) -> Arrangement | None:
        """The one of this name, None where it was not tried."""
        return next((one for one in self.arrangements if one.by == by), None)


@dataclass(frozen=True)
class ProbedLayer:
    """What linear probes read at one layer; shares of held-out samples, 0 to 1.

    `moments`: the class of a batch of one class, from the mini-batch's moments alone (before: by
    chance). `mates`: the class of its mates, from the normalised activation of a stranger (before:
    how often the same samples are read so in shuffled batches); `own`: its own class, from the
    same. `p_value`: one-sided, of "mates no more than there".
    """

    name: str
    order: int
    channels: int
    moments: Change
    mates: Change
    own: Figure
    p_value: float | None = None


@dataclass(frozen=True)
class Probed:
    """Linear probes at every layer, in batches of `size`; `batches`: of one class, in a draw."""

    size: int
    classes: int
    batches: int
    strangers: int
    folds: int
    layers: tuple[ProbedLayer, ...]


@dataclass(frozen=True)
class Dependence:
    """Whether an output in eval mode depends on the rest of its batch, on `samples` samples.

    `alone`, `other_mates`, `position`: the largest difference of an output from that of the same
    sample in its batch, relative to the largest output; None where the model takes no such batch.
    `tolerance`: what rounding may give. `layer`, `kind`: the first module whose output of a sample
    differs, in `found_by`. `in_float64`: whether it was seen again in float64, None where that was
    not tried. `stochastic`: two runs of one batch differ, and nothing else can be told.
    """

    samples: int
    tolerance: float
    alone: float | None = None
    other_mates: float | None = None
    position: float | None = None
    layer: str | None = None
    kind: str | None = None
    found_by: Literal["alone", "other_mates", "position"] | None = None
    in_float64: bool | None = None
    stochastic: bool = False

    @property
    def depends(self) -> bool:
        """Whether the output of a sample is not its own."""
        return self.found_by is not None


@dataclass(frozen=True)
class Leakage:
    """Whether a sample's output depends on its batch mates, in training and in eval mode.

    `deployed`: the network under its estimates. `sizes`: by size of the normalisation batch.
    `batch_size`: of the batches that hold them, where they are groups inside one. `loader_order`:
    whether the order is that of a loader, which training may have had, or of the data's files.
    """

    versions: dict[str, str]
    device: str
    dtype: str
    model: ModelInfo
    data: DataInfo
    deployed: Scores
    sizes: tuple[SizeLeakage, ...]
    dependence: Dependence | None = None
    probed: Probed | None = None
    batch_size: int | None = None
    loader_order: bool = False
    findings: tuple[Finding, ...] = ()
    request: Request | None = None
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA

    def to_json(self) -> str:
        """As a JSON document, `leakage.json`."""
        return write_document(self.schema, asdict(self))

    @classmethod
    def from_json(cls, text: str, *, source: str = "leakage") -> Leakage:
        """Read what `to_json` wrote. Raises `InputError` that names `source` and the field."""
        return read_document(
            cls, text, schema=SCHEMA, source=source, remedy="give what bnaudit leakage wrote"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row an arrangement (`by` "deployed" and "shuffled" among them), changes flattened."""
        import pandas as pd

        return pd.DataFrame(rows(self))

    def __repr__(self) -> str:
        codes = ", ".join(finding.code for finding in self.findings) or "no findings"
        return f"<Leakage of {self.model.source}: {codes}>"


def rows(found: Leakage) -> list[dict[str, Any]]:
    """A row an arrangement as plain data: what the table of the files holds."""
    listed = [{"by": "deployed", "size": None, **_scores(found.deployed)}]
    for one in found.sizes:
        listed.append({"by": "shuffled", "size": one.size, "draws": one.draws})
        listed[-1] |= {"flips": one.flips.value if one.flips else None, **_scores(one.shuffled)}
        for arrangement in one.arrangements:
            row = {"by": arrangement.by, "size": one.size, "draws": arrangement.draws}
            row |= {"purity": arrangement.purity, "purity_shuffled": arrangement.purity_shuffled}
            row["batches"] = arrangement.batches
            row |= {"samples": arrangement.samples, "p_value": arrangement.p_value}
            for name in ("accuracy", "loss", "agreement"):
                change: Change | None = getattr(arrangement, name)
                row[name] = change.after if change else None
                row[f"{name}_change"] = change.difference if change else None
                row[f"{name}_change_low"] = change.low if change else None
                row[f"{name}_change_high"] = change.high if change else None
            listed.append(row)
    return listed


def _scores(scores: Scores) -> dict[str, Any]:
    figures = {"accuracy": scores.accuracy, "loss": scores.loss, "agreement": scores.agreement}
    values = {name: figure.value if figure else None for name, figure in figures.items()}
    return {"samples": scores.samples, **values}
