"""What XBN conversion puts in place of a layer, and that the model trains with it."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from xbn_models import digits_net

from bnaudit.nn.xbn import convert_xbn


def digits() -> nn.Module:
    torch.manual_seed(0)
    model = digits_net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.eps = 1e-3
    return model


@pytest.mark.parametrize("position", ["P1", "P2", "P3"])
@pytest.mark.parametrize("norm", ["group", "layer", "instance"])
def test_gamma_beta_and_eps_are_carried_over_and_the_rest_is_untouched(norm, position):
    model = digits()
    before = dict(model.named_modules())
    groups = {"groups": 8} if norm == "group" else {}
    conversion = convert_xbn(model, norm=norm, position=position, **groups)
    assert conversion.model is model
    replaced = {one.name for one in conversion.replaced}
    assert len(replaced) == 5
    for name, module in model.named_modules():
        if name not in replaced:
            assert module is before[name]
            continue
        old = before[name]
        assert isinstance(module, nn.GroupNorm)
        assert module.weight is old.weight
        assert module.bias is old.bias
        assert module.eps == old.eps
        channels = old.num_features
        assert module.num_groups == {"group": 8, "layer": 1, "instance": channels}[norm]
    x = torch.randn(4, 1, 8, 8)
    assert model(x).shape == (4, 10)


def test_the_replacement_is_the_named_norm():
    model = digits()
    old = model.bn
    x = torch.randn(3, 16, 8, 8)
    reference = {
        "instance": functional.instance_norm(x, weight=old.weight, bias=old.bias, eps=old.eps),
        "layer": functional.layer_norm(x, (16, 8, 8), eps=old.eps) * old.weight.view(-1, 1, 1)
        + old.bias.view(-1, 1, 1),
    }
    for norm, expected in reference.items():
        converted = convert_xbn(copy.deepcopy(model), norm=norm).model
        torch.testing.assert_close(converted.bn(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "mobilenet_v2", "shufflenet"])
def test_a_converted_model_trains_a_step(name):
    full = "shufflenet_v2_x1_0" if name == "shufflenet" else name
    model = torchvision.models.get_model(full, weights=None, num_classes=4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    before = dict(model.named_modules())
    replaced = [one.name for one in convert_xbn(model).replaced]
    kept = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert kept
    assert all(model.get_submodule(n) is before[n] for n in kept)
    weights = {n: model.get_submodule(n).weight.detach().clone() for n in replaced}
    loss = functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    optimiser.step()  # made before the conversion: γ and β are the same parameters
    assert all((model.get_submodule(n).weight != weights[n]).any() for n in replaced)
    assert all(model.get_submodule(n).num_batches_tracked == 1 for n in kept)


def test_it_runs_under_autocast_and_compile_and_is_copied():
    model = convert_xbn(digits(), groups=4).model
    x = torch.randn(4, 1, 8, 8)
    plain = model(x)
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(x), plain)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(x), plain, rtol=1e-4, atol=1e-4)
    compiled(x).sum().backward()
    assert model.bn.weight.grad is not None
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), plain, rtol=0.1, atol=0.2)


def test_a_layer_with_an_activation_inside_keeps_it():
    timm = pytest.importorskip("timm")
    model = timm.create_model("efficientnet_b0").eval()
    before = model.blocks[1][0].bn2
    convert_xbn(model)
    after = model.blocks[1][0].bn2
    x = torch.randn(2, 96, 5, 5)
    plain = functional.group_norm(x, 16, before.weight, before.bias, before.eps)
    torch.testing.assert_close(after(x), functional.silu(plain))
    assert after.act is before.act
    assert not after.training
    assert set(after.state_dict()) == {"weight", "bias"}


class Doubled(nn.BatchNorm2d):
    def forward(self, input):  # noqa: A002
        return 2 * super().forward(input)


def test_a_layer_that_does_something_else_is_refused_by_name():
    model = digits()
    model.blocks[1].bn1 = Doubled(16)
    before = list(model.modules())
    with pytest.raises(TypeError, match=r"blocks\.1\.bn1 is a Doubled"):
        convert_xbn(model)
    assert list(model.modules()) == before


def test_lazy_and_parametrised_layers_are_refused():
    model = digits()
    nn.utils.parametrizations.weight_norm(model.blocks[1].bn1, dim=None)
    with pytest.raises(TypeError, match="parametrised weights"):
        convert_xbn(model)
    model.blocks[1].bn1 = nn.LazyBatchNorm2d()
    with pytest.raises(TypeError, match=r"blocks\.1\.bn1 is a LazyBatchNorm2d"):
        convert_xbn(model)


def test_hooks_stay_and_their_handles_remove_them():
    model = digits()
    called = []
    handle = model.bn.register_forward_hook(lambda *_: called.append("bn"))
    convert_xbn(model)
    model(torch.zeros(2, 1, 8, 8))
    handle.remove()
    model(torch.zeros(2, 1, 8, 8))
    assert called == ["bn"]


def test_groups_are_clamped_to_the_channels_and_have_to_divide_them():
    assert convert_xbn(digits(), groups=32).model.bn.num_groups == 16
    with pytest.raises(ValueError, match=r"groups 5 do not divide the 16 channels of bn: give 4"):
        convert_xbn(digits(), groups=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "norm 'batch': give one of group, layer, instance"),
        ({"position": "P4"}, "position 'P4': give one of P1, P2, P3"),
        ({"norm": "layer", "groups": 4}, "groups belong to norm 'group'"),
        ({"groups": 0}, "groups 0: give a whole number from 1"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        convert_xbn(digits(), **options)


def test_a_layer_that_has_two_names_is_replaced_under_both():
    model = digits()
    model.blocks[1].bn1 = model.blocks[0].bn1
    conversion = convert_xbn(model)
    assert model.blocks[1].bn1 is model.blocks[0].bn1
    assert isinstance(model.blocks[0].bn1, nn.GroupNorm)
    names = [one.name for one in conversion.replaced]
    assert names == ["bn", "blocks.0.bn1", "blocks.2.bn1", "blocks.3.bn1"]
