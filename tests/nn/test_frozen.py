"""FrozenBN: the statistics are constants, whatever train() says; everything else goes on."""

import copy
import io
import pickle

import pytest
import timm.layers
import torch
from references import inputs, random_like
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit import nn as bnn

X = inputs((8, 3, 6, 6), torch.float32)


def net() -> nn.Module:
    torch.manual_seed(0)
    return random_like(
        nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Dropout(0.5),
            nn.Conv2d(4, 4, 3),
            bnn.BatchGroupNorm2d(4, 2),
            nn.Flatten(),
            nn.Linear(16, 4),
            nn.BatchNorm1d(4, track_running_stats=False),
        )
    )


def statistics(model: nn.Module) -> list:
    return [b.clone() for name, b in model.named_buffers() if "1." in name or "4." in name]


def test_a_frozen_layer_normalises_by_its_statistics_and_never_updates_them():
    model = net()
    before = statistics(model)
    conversion = bnn.freeze(model)
    assert [one.name for one in conversion.replaced] == ["1", "4"]
    model.train()
    assert model.training
    assert [model[i].training for i in (1, 2, 4, 7)] == [False, True, False, True]
    model(X)
    for found, expected in zip(statistics(model), before, strict=True):
        assert torch.equal(found, expected)
    plain = net().eval()
    assert torch.equal(
        model[1](X[:, :1].expand(-1, 4, -1, -1)), plain[1](X[:, :1].expand(-1, 4, -1, -1))
    )
    assert bnn.freeze(model).replaced == ()


def test_gamma_and_beta_learn_on():
    model = net()
    bnn.freeze(model).model.train()
    model(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model[1].parameters())


def test_unfreeze_undoes_it():
    model = net().train()
    bnn.freeze(model)
    assert [one.name for one in bnn.unfreeze(model).replaced] == ["1", "4"]
    assert model[1].training
    assert model[4].training
    model.eval()
    assert not model[1].training
    assert bnn.unfreeze(model).replaced == ()
    bnn.freeze(model)
    bnn.unfreeze(model)
    assert not model[1].training


def test_copies_and_pickles_are_frozen_and_themselves():
    model = net()
    bnn.freeze(model)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(stored, weights_only=False),
    ):
        model.eval()
        other.train()
        assert other[2].training
        assert not other[1].training
        bnn.unfreeze(other)
        assert other[1].training
        assert not model[1].training
        assert bnn.is_frozen(model[1])


def test_the_state_dict_and_the_layers_stay_the_same():
    model = net()
    modules, state = list(model.modules()), model.state_dict()
    bnn.freeze(model)
    assert list(model.modules()) == modules
    assert model.state_dict().keys() == state.keys()
    net().load_state_dict(model.state_dict())


def test_a_layer_that_contains_a_dropout_freezes_without_it():
    layer = timm.layers.BatchNormAct2d(4, drop_layer=nn.Dropout)
    bnn.freeze(nn.Sequential(layer)).model.train()
    assert not layer.training
    assert layer.drop.training


def test_autocast_and_compile_see_nothing_of_it():
    model = net()
    bnn.freeze(model)
    model.train()[2].eval()
    expected = model(X)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), expected)
    compiled.train()
    assert not model[1].training
    with torch.autocast("cpu", torch.bfloat16):
        assert model[1](X[:, :1].expand(-1, 4, -1, -1).bfloat16()).dtype == torch.bfloat16


def test_the_last_epochs_are_trained_frozen_and_a_checkpoint_remembers_it():
    model = net()
    schedule = bnn.FreezeAfter(model, epoch=2)
    seen = []
    for epoch in range(4):
        model.train()
        schedule.step(epoch)
        seen.append((model[1].training, schedule.frozen))
    assert seen == [(True, False), (True, False), (False, True), (False, True)]
    other = net().train()
    resumed = bnn.FreezeAfter(other, epoch=99)
    resumed.load_state_dict(pickle.loads(pickle.dumps(schedule.state_dict())))
    assert (resumed.epoch, resumed.frozen) == (2, True)
    assert not other.train()[1].training
    resumed.step(0)
    assert other[1].training
    with pytest.raises(ValueError, match="whole number from 0; got -1"):
        bnn.FreezeAfter(model, epoch=-1)


def test_recalibrate_leaves_frozen_layers_alone_unless_told():
    data = TensorDataset(inputs((64, 3, 6, 6), torch.float32), torch.arange(64) % 4)
    model = net()[:5].append(nn.Flatten())
    bnn.freeze(model)
    audit = bnaudit.measure(model, data)
    assert [(one.status, one.frozen) for one in audit.layers] == [("audited", True)] * 2
    before = statistics(model)
    bnaudit.recalibrate(model, data).apply()
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), before, strict=True))
    bnaudit.recalibrate(model, data, include_frozen=True).apply()
    assert not torch.equal(statistics(model)[0], before[0])
