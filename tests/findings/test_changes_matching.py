"""Which layer of one Audit is which of another."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import torch
from shifted_chains import audit_of, between
from torch import Tensor, nn

from bnaudit.findings.matching import match_layers
from bnaudit.results import Changes, LayerAudit


class Block(nn.Module):
    """Two layers with a skip, (N, width) to (N, width)."""

    def __init__(self, width: int, norm: str = "bn") -> None:
        super().__init__()
        self.norm = norm
        self.add_module(f"{norm}1", nn.BatchNorm1d(width))
        self.add_module(f"{norm}2", nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.get_submodule(f"{self.norm}1")(x).relu()
        return x + self.get_submodule(f"{self.norm}2")(y)


def compared(before: nn.Module, after: nn.Module, width: int = 4) -> Changes:
    x = torch.randn(40, width, generator=torch.Generator().manual_seed(0))
    return between(audit_of(before.eval(), x), audit_of(after.eval(), x))


def names(changes: Changes) -> list[tuple[str, str]]:
    return [(layer.before_name, layer.name) for layer in changes.layers]


def named(**children: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(children))


def test_layers_have_the_order_of_the_calls() -> None:
    changes = compared(*[named(a=nn.BatchNorm1d(4), b=Block(4))] * 2)
    assert names(changes) == [("a", "a"), ("b.bn1", "b.bn1"), ("b.bn2", "b.bn2")]
    assert changes.renamed == ()


def test_a_prefix_is_no_other_layer() -> None:
    model = nn.Sequential(Block(4), Block(4))
    changes = compared(model, named(backbone=model))
    assert [now for _, now in names(changes)] == [f"backbone.{was}" for was, _ in names(changes)]
    assert len(changes.renamed) == 4
    assert changes.added == changes.removed == ()


def test_a_module_put_in_front_counts_on_the_numbers() -> None:
    before = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    after = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4))
    assert names(compared(before, after)) == [("1", "2")]


def test_another_end_of_the_name_is_another_layer() -> None:
    changes = compared(nn.Sequential(Block(4)), nn.Sequential(Block(4, norm="norm")))
    assert changes.layers == ()
    assert changes.added == ("0.norm1", "0.norm2")
    assert changes.removed == ("0.bn1", "0.bn2")


def test_another_width_is_another_layer_unless_it_has_the_same_name() -> None:
    wide = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    narrow = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    moved = named(head=nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    assert compared(wide, moved).layers == ()
    changes = compared(wide, narrow)
    assert names(changes) == [("1", "1")]
    assert changes.layers[0].note == "8 channels before, 4 after"


def test_added_and_removed_layers_are_named() -> None:
    before = named(stem=nn.BatchNorm1d(4), body=Block(4))
    after = named(stem=nn.BatchNorm1d(4), head=nn.BatchNorm1d(4))
    changes = compared(before, after)
    assert names(changes) == [("stem", "stem")]
    assert changes.removed == ("body.bn1", "body.bn2")
    assert changes.added == ("head",)


def test_of_several_that_fit_the_longest_run_is_matched() -> None:
    before = named(a=nn.Sequential(*[Block(4) for _ in range(3)]))
    after = named(b=nn.Sequential(*[Block(4) for _ in range(2)]))
    changes = compared(before, after)
    assert [was for was, _ in names(changes)] == ["a.0.bn1", "a.0.bn2", "a.1.bn1", "a.1.bn2"]
    assert changes.removed == ("a.2.bn1", "a.2.bn2")
    assert changes.added == ()


def test_an_alias_is_a_name() -> None:
    norm = nn.BatchNorm1d(4)
    before = named(left=norm, right=norm)
    changes = compared(before, named(right=nn.BatchNorm1d(4), new=nn.BatchNorm1d(4)))
    assert names(changes) == [("left", "right")]
    assert changes.added == ("new",)


def test_a_layer_that_was_not_called_is_there_without_figures() -> None:
    model = named(used=nn.BatchNorm1d(4), head=nn.BatchNorm1d(4))
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    whole = audit_of(model.eval(), x)
    part = audit_of(model, x, forward=lambda m, batch: m.get_submodule("used")(batch[0]))
    head = next(layer for layer in between(whole, part).layers if layer.name == "head")
    assert head.output_shift is None
    assert head.total_shift is None
    assert head.note == "no figure after: the forward never reached it"


def test_a_few_layers_in_common_may_be_another_architecture() -> None:
    before = named(stem=nn.BatchNorm1d(4), body=Block(4))
    after = named(stem=nn.BatchNorm1d(4), other=Block(4, norm="norm"))
    (note,) = compared(before, after).notes
    assert note == "Only 1 of 3 layers stand on both sides: is it another architecture?"
    assert compared(before, before).notes == ()


def test_every_layer_is_in_one_place() -> None:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    old = audit_of(named(a=Block(4), b=nn.Sequential(Block(4))).eval(), x).layers
    new = audit_of(named(b=Block(4), c=nn.Sequential(Block(4), Block(4))).eval(), x).layers
    shared = replace(new[0], aliases=("a.bn1", "a.bn2"))
    for after in (new, (shared, *new[1:])):
        found = match_layers(old, after)
        assert sorted(
            [m.before.name for m in found.matches] + [layer.name for layer in found.removed]
        ) == sorted(layer.name for layer in old)
        assert sorted(
            [m.after.name for m in found.matches] + [layer.name for layer in found.added]
        ) == sorted(layer.name for layer in after)


def many(prefix: str, count: int) -> list[LayerAudit]:
    """So many layers of one measured network, as far as matching looks at them."""
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    (layer,) = audit_of(named(a=nn.BatchNorm1d(4)).eval(), x).layers
    return [replace(layer, name=f"{prefix}.{i}.bn", order=i) for i in range(count)]


def test_a_prefix_is_no_other_layer_however_many_there_are() -> None:
    found = match_layers(many("model", 3000), many("backbone", 3000))
    assert len(found.matches) == 3000
    assert found.now["model.2999.bn"] == "backbone.2999.bn"


def test_renamed_layers_are_not_looked_for_among_very_many() -> None:
    shared = many("shared", 2)
    found = match_layers([*shared, *many("old", 3000)], [*many("new", 3001), *shared])
    assert [match.after.name for match in found.matches] == ["shared.0.bn", "shared.1.bn"]
    assert (len(found.removed), len(found.added)) == (3000, 3001)
