"""What the recipes rest on, on the real digits and networks trained for a moment."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from digits import model
from reproduce.catalogue import CLAIMS
from reproduce.claim_batch_group import batch_group_norm
from reproduce.claim_blocking import COMMON as COMMON_IN_STACKS
from reproduce.claim_leakage import GHOST, grouped, one_class_each
from reproduce.claim_xbn import COMMON as COMMON_IN_BLOCKS
from reproduce.data import SHIFTS, Images, digits
from reproduce.figures import deployed, measured
from reproduce.networks import (
    GROUPS,
    P12,
    R9,
    batch_norm,
    group_norm_at_every_second,
)
from reproduce.side_by_side import SideBySide, together
from reproduce.training import fit
from reproduce.zoo import Zoo, missing, train_side_by_side
from torch import nn
from train import Recipe, accuracy, train

from bnaudit import nn as bnn

SHORT = Recipe(batch_size=90, epochs=1)


def few(seed: int) -> Images:
    data = digits("train").first(90)
    return Images((data.images + 0.01 * seed).to(torch.get_default_dtype()), data.labels)


def same_tensors(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_fit_trains_as_the_sample_models_were_trained():
    data = digits("train")
    assert same_tensors(
        fit(model, SHORT, data, seed=5), train(SHORT, data.images, data.labels, seed=5)
    )


@pytest.mark.parametrize(
    ("build", "frozen_from"),
    [
        (partial(P12, batch_norm), None),
        (partial(P12, batch_norm), 1),
        (partial(P12, group_norm_at_every_second), None),
        (partial(P12, batch_group_norm), None),
        (R9, None),
    ],
)
def test_networks_side_by_side_learn_what_each_learns_alone(build, frozen_from):
    def alone() -> nn.Module:
        network = build()
        if frozen_from is not None:
            bnn.freeze(network)
        return network

    torch.set_default_dtype(torch.float64)  # in float32 rounding grows with every step
    try:
        kind = SideBySide("pair", build, replace(SHORT, batch_size=30), few, frozen_from)
        for seed, network in zip((8, 9), kind.train((8, 9)), strict=True):
            for name, tensor in fit(alone, kind.recipe, few(seed), seed).state_dict().items():
                torch.testing.assert_close(network.state_dict()[name], tensor)
    finally:
        torch.set_default_dtype(torch.float32)


def test_another_seed_gives_another_network():
    data = digits("train").first(180)
    assert not same_tensors(fit(R9, SHORT, data, 0), fit(R9, SHORT, data, 1))


def test_networks_to_be_compared_start_from_the_same_weights():
    idle = replace(SHORT, learning_rate=0.0)
    data = digits("train").first(90)
    bn = fit(partial(P12, batch_norm), idle, data, 3)
    blocked = fit(partial(P12, group_norm_at_every_second), idle, data, 3)
    xbn = fit(lambda: bnn.convert(R9(), "xbn", groups=GROUPS).model, idle, data, 3)
    plain = fit(R9, idle, data, 3)
    for one, other in ((bn, blocked), (plain, xbn)):
        weights = dict(other.named_parameters())
        assert all(torch.equal(p, weights[n]) for n, p in one.named_parameters())


def test_the_layers_that_are_compared_are_batch_norm_in_both_networks():
    both = [
        (COMMON_IN_STACKS, P12(batch_norm), P12(group_norm_at_every_second)),
        (COMMON_IN_BLOCKS, R9(), bnn.convert(R9(), "xbn", groups=GROUPS).model),
    ]
    for names, one, other in both:
        for network in (one, other):
            assert all(isinstance(network.get_submodule(n), nn.BatchNorm2d) for n in names)


def test_xbn_replaces_the_first_norm_of_each_block_and_the_stems():
    replaced = {one.name for one in bnn.convert(R9(), "xbn", groups=GROUPS).replaced}
    assert replaced == {"bn", *(f"blocks.{block}.bn1" for block in range(4))}


def test_grouped_batches_hold_ghost_batches_of_one_class():
    labels = digits("train").labels
    chunks = one_class_each(labels)
    assert all(len(chunk) == GHOST and len(labels[chunk].unique()) == 1 for chunk in chunks)
    taken = torch.cat(chunks)
    assert len(taken.unique()) == len(taken)
    batches = list(grouped(labels, Recipe(batch_size=64)))
    assert all(len(batch) == 64 for batch in batches)
    assert len(batches) == len(chunks) // 8
    assert all(len(labels[g].unique()) == 1 for batch in batches for g in batch.split(GHOST))


def test_shifts_keep_pixels_between_black_and_white_and_the_same_digits():
    test = digits("test").first(50)
    for shift in SHIFTS.values():
        seen = test.through(shift)
        assert seen.images.shape == test.images.shape
        assert 0 <= seen.images.min() <= seen.images.max() <= 1
        assert not torch.equal(seen.images, test.images)
        assert torch.equal(seen.images, test.through(shift).images)
        assert torch.equal(seen.labels, test.labels)


def test_a_network_of_the_zoo_is_trained_once_and_handed_out_as_a_copy():
    zoo, trained = Zoo(0), []
    first = zoo.network("one", lambda: trained.append(1) or nn.BatchNorm1d(2))
    first.running_mean += 1
    assert torch.equal(zoo.network("one", lambda: trained.append(1)).running_mean, torch.zeros(2))
    assert trained == [1]


def test_a_prepared_network_is_read_from_its_file_with_its_share_of_the_time(tmp_path):
    kind = SideBySide("short", R9, SHORT, few, frozen_from=1)
    assert missing(kind, (0, 1), tmp_path)
    seconds = train_side_by_side(kind, (0, 1), tmp_path)
    assert not missing(kind, (0, 1), tmp_path)
    zoo = Zoo(1, tmp_path)
    network = zoo.prepared(kind)
    assert same_tensors(network, zoo.prepared(kind))
    assert not same_tensors(network, Zoo(0, tmp_path).prepared(kind))
    assert all(bnn.is_frozen(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert zoo.seconds == pytest.approx(seconds / 2)


def test_a_layer_that_cannot_be_joined_is_named():
    networks = [nn.Sequential(nn.PReLU()), nn.Sequential(nn.PReLU())]
    with pytest.raises(TypeError, match="PReLU cannot be joined"):
        together(networks)


def test_bnaudits_accuracy_is_the_plain_forwards():
    zoo = Zoo(0)
    network = fit(R9, SHORT, zoo.train, 0)
    plain = accuracy(network, zoo.test.images, zoo.test.labels)
    assert deployed(measured(network, zoo.test)).accuracy == pytest.approx(plain)


def test_every_claim_has_its_hypotheses_in_the_docstring_of_its_script():
    import sys

    for claim in CLAIMS.values():
        text = sys.modules[claim.run.__module__].__doc__
        assert all(one.key in text for one in claim.primary), claim.key
        assert "seeds from 100" in text
        assert len({one.key for one in claim.hypotheses}) == len(claim.hypotheses)
        assert claim.seeds >= 5
        assert f"before seeds {claim.from_seed}, " in text
