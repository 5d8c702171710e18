"""`convert`: which layers change into what, and what they keep."""

import copy
import subprocess
import sys

import pytest
import timm.layers
import torch
from references import inputs, random_like
from torch import nn
from torch.nn.utils import parametrizations

from bnaudit import nn as bnn

DROP_INS = {
    "ghost": ({"ghost_size": 4}, "GhostBatchNorm"),
    "example-weighing": ({"alpha": 0.2}, "ExampleWeighingBatchNorm"),
}
KEPT = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Net(nn.Module):
    """Layers of two dimensions, one of them under two names, one without γ and β."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=1e-3, momentum=None))
        self.again = self.stem[1]
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6, affine=False), nn.ReLU())
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(6 * 16, 6), nn.BatchNorm1d(6, momentum=0.3)
        )

    def forward(self, x):
        x = self.again(self.stem(x))
        return self.head(self.body(x))


def net() -> Net:
    torch.manual_seed(0)
    return random_like(Net())


X = inputs((8, 3, 8, 8), torch.float32)


@pytest.mark.parametrize("kind", DROP_INS)
def test_a_drop_in_keeps_everything_that_belonged_to_the_layer(kind):
    options, name = DROP_INS[kind]
    model = net().double()
    model.body.eval()
    model.stem[1].weight.requires_grad_(False)
    before = dict(model.named_modules())
    calls = []
    handle = model.head[2].register_forward_hook(lambda *_: calls.append(1))
    conversion = bnn.convert(model, kind, **options)
    assert conversion.model is model
    assert [one.name for one in conversion.replaced] == ["stem.1", "body.1", "head.2"]
    assert conversion.replaced[2].before == "BatchNorm1d(6)"
    assert conversion.replaced[2].after.startswith(f"{name}1d(6, ")
    assert str(conversion).splitlines()[0].startswith("stem.1  BatchNorm2d(6) → ")
    assert model.again is model.stem[1]
    for place in ("stem.1", "body.1", "head.2"):
        old, new = before[place], model.get_submodule(place)
        assert type(new).__name__ == name + type(old).__name__.removeprefix("BatchNorm")
        assert isinstance(new, type(old))
        for key in KEPT:
            assert getattr(new, key) is getattr(old, key)
        assert (new.eps, new.momentum, new.training) == (old.eps, old.momentum, old.training)
        assert (new.affine, new.track_running_stats) == (old.affine, old.track_running_stats)
    assert all(value is before["stem.0"] for value in [model.stem[0]])
    model(X.double())
    handle.remove()
    model(X.double())
    assert calls == [1]


def test_a_state_dict_goes_back_and_forth():
    plain = net()
    for kind, (options, _) in DROP_INS.items():
        model = bnn.convert(net(), kind, **options).model
        assert list(model.state_dict()) == list(plain.state_dict())
        plain.load_state_dict(model.state_dict())
        model.load_state_dict(plain.state_dict())


def test_ghost_and_weightless_example_weighing_leave_inference_as_it_is():
    expected = net().eval()(X)
    assert torch.equal(bnn.convert(net(), "ghost", ghost_size=2).model.eval()(X), expected)
    weighing = bnn.convert(net(), "example-weighing", alpha=0.0).model.eval()
    assert torch.equal(weighing(X), expected)
    weighing = bnn.convert(net(), "example-weighing", alpha=0.3).model.eval()
    assert not torch.allclose(weighing(X), expected)


def test_an_optimiser_made_before_goes_on():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    bnn.convert(model, "ghost", ghost_size=4)
    before = model.head[2].weight.clone()
    model(X).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.head[2].weight, before)


def test_one_kind_follows_another():
    model = bnn.convert(net(), "ghost", ghost_size=4).model
    bnn.convert(model, "example-weighing", alpha=0.5)
    assert type(model.stem[1]) is bnn.ExampleWeighingBatchNorm2d
    bnn.convert(model, "batch-group", groups=2)
    assert type(model.head[2]) is bnn.BatchGroupNorm1d


def test_batch_group_pools_the_statistics_of_its_channels():
    plain, model = net(), bnn.convert(net(), "batch-group", groups=3, examples=2).model
    for name in ("stem.1", "body.1", "head.2"):
        old, new = plain.get_submodule(name), model.get_submodule(name)
        mean = old.running_mean.double().reshape(3, 2)
        second = (old.running_var.double() + old.running_mean.double() ** 2).reshape(3, 2).mean(1)
        torch.testing.assert_close(new.running_mean.double(), mean.mean(1))
        torch.testing.assert_close(new.running_var.double(), second - mean.mean(1) ** 2)
        assert (new.groups, new.examples, new.eps) == (3, 2, old.eps)
    everything = bnn.convert(net(), "batch-group", groups=6).model
    assert torch.equal(everything.eval()(X), plain.eval()(X))
    assert torch.equal(everything.train()(X), plain.train()(X))


def test_sync_is_pytorchs_own():
    model = net().eval()
    conversion = bnn.convert(model, "sync")
    assert type(model.stem[1]) is nn.SyncBatchNorm
    assert model.again is model.stem[1]
    assert [one.after for one in conversion.replaced] == ["SyncBatchNorm(6)"] * 3
    assert not model.stem[1].training
    assert torch.equal(model(X), net().eval()(X))


def test_frozen_and_xbn_are_kinds_too():
    model = net()
    assert [one.after for one in bnn.convert(model, "frozen").replaced] == [
        "BatchNorm2d(6), frozen",
        "BatchNorm2d(6), frozen",
        "BatchNorm1d(6), frozen",
    ]
    with pytest.raises(ValueError, match="no residual block"):
        bnn.convert(nn.Sequential(nn.BatchNorm2d(3)), "xbn")


def test_what_is_frozen_stays_so():
    model = net()
    bnn.freeze(model)
    bnn.convert(model, "ghost", ghost_size=4)
    assert not model.train().stem[1].training
    assert bnn.is_frozen(model.stem[1])


def test_a_model_that_is_a_layer_comes_back_as_another():
    layer = nn.BatchNorm2d(3)
    conversion = bnn.convert(layer, "ghost", ghost_size=2)
    assert isinstance(conversion.model, bnn.GhostBatchNorm2d)
    assert conversion.model.weight is layer.weight
    assert conversion.replaced[0].name == ""


def test_a_layer_that_contains_its_activation_keeps_it():
    torch.manual_seed(0)
    layer = random_like(timm.layers.BatchNormAct2d(6, act_layer=nn.SiLU))
    model = nn.Sequential(nn.Conv2d(3, 6, 3), layer)
    expected, state = model.eval()(X), list(model.state_dict())
    for kind, (options, name) in DROP_INS.items():
        converted = bnn.convert(copy.deepcopy(model), kind, **options).model
        assert type(converted[1]).__name__ == f"{name}2d"
        assert list(converted.state_dict()) == state
        assert isinstance(converted[1].act, nn.SiLU)
        if kind == "ghost":
            assert torch.equal(converted(X), expected)
    with pytest.raises(TypeError, match="sync: 1 is a BatchNormAct2d"):
        bnn.convert(model, "sync")


class Scaled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class ScaledInTraining(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * (2 if self.training else 1)


class Renamed(nn.BatchNorm2d):
    pass


def test_a_forward_of_its_own_is_refused_and_nothing_is_changed():
    for own in (Scaled, ScaledInTraining):
        for kind, (options, _) in DROP_INS.items():
            model = nn.Sequential(nn.BatchNorm2d(6), own(6))
            with pytest.raises(TypeError, match=f"{kind}: 1 is a {own.__name__}, whose own forw"):
                bnn.convert(model, kind, **options)
            assert type(model[0]) is nn.BatchNorm2d
    model = nn.Sequential(Renamed(6))
    assert type(bnn.convert(model, "ghost", ghost_size=2).model[0]) is bnn.GhostBatchNorm2d
    assert bnn.convert(nn.Sequential(Scaled(6)), "frozen").replaced  # nothing of it is lost


def test_what_cannot_be_converted_is_said_in_one_line():
    parametrised = parametrizations.weight_norm(nn.BatchNorm2d(3).train(), dim=None)
    cases = [
        (ValueError, "no conversion is called 'gost': give one of ghost, batch", net(), "gost", {}),
        (ValueError, "ghost: the model has no Batch", nn.ReLU(), "ghost", {"ghost_size": 2}),
        (ValueError, "frozen: the model has no Batch", nn.ReLU(), "frozen", {}),
        (ValueError, "a whole number from 1 on, got 0", net(), "ghost", {"ghost_size": 0}),
        (ValueError, "in .0, 1.; got 2", net(), "example-weighing", {"alpha": 2}),
        (ValueError, "6 channels of stem.1; got 4", net(), "batch-group", {"groups": 4}),
        (TypeError, "ghost_size", net(), "ghost", {}),
        (TypeError, "size", net(), "ghost", {"size": 3}),
        (TypeError, "not seen an input", nn.LazyBatchNorm2d(), "ghost", {"ghost_size": 2}),
        (TypeError, "does not say whether", nn.SyncBatchNorm(3), "ghost", {"ghost_size": 2}),
        (TypeError, "parametrised", parametrised, "ghost", {"ghost_size": 2}),
    ]
    for error, match, model, kind, options in cases:
        with pytest.raises(error, match=match) as raised:
            bnn.convert(model, kind, **options)
        assert "\n" not in str(raised.value)


def test_import_bnaudit_does_not_import_torch_and_nn_is_found_from_it():
    code = (
        "import sys, bnaudit; assert 'torch' not in sys.modules; from bnaudit import nn; nn.convert"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
