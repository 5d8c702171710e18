"""XBN on models that `torch.fx` cannot trace: run instead, on noise or an example, or in parts."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from bnaudit import nn as bnn
from bnaudit.nn.xbn import convert_xbn


def names(model: nn.Module, **options) -> list[str]:
    return [one.name for one in convert_xbn(model, **options).replaced]


class Block(nn.Module):
    """A basic block without a convolution in its shortcut; its kinds say how they fit it in."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.u = nn.Conv2d(channels, width, 3, padding=1)
        self.a = nn.BatchNorm2d(width)
        self.v = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.BatchNorm2d(width)

    def branch(self, x: Tensor) -> Tensor:
        return self.b(self.v(functional.relu(self.a(self.u(x)))))


class Padding(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if y.shape[1] != x.shape[1]:
            x = functional.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(x + y)


class Filling(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        whole = torch.zeros_like(y)
        whole[:, : x.shape[1]] = x
        y += whole
        return y.relu_()


class Skipping(Block):
    """Adds only where the shapes agree, as the blocks of EfficientNets do."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return x + y if x.shape == y.shape else y


class Deciding(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return y - x.mean() + 1 if float(x.detach().abs().sum()) < 0 else torch.add(y, x[:, :1])


class Masked(Block):
    """Neither symbols nor noise go through it."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.branch(x) * mask + x if bool(mask.any()) else x


class Net(nn.Module):
    def __init__(self, block: type[Block]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.first, self.second = block(8, 8), block(8, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)))
        return self.head(functional.dropout(x.mean((2, 3)), 0.5, self.training))


class MaskedNet(nn.Module):
    def __init__(self, block: type[Block] = Masked) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.first, self.second = block(8, 8), block(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.stem(x)
        for block in (self.first, self.second):
            x = block(x, mask) if isinstance(block, Masked) else block(x * mask)
        return x


@pytest.mark.parametrize("block", [Padding, Filling, Skipping, Deciding])
def test_a_block_that_cannot_be_traced_is_run_and_nothing_of_the_model_moves(block):
    model = Net(block).train()
    model.second.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    conversion = convert_xbn(model)
    expected = ["stem.1", "first.a", "second.a"]
    assert [one.name for one in conversion.replaced] == expected[: 2 if block is Skipping else 3]
    assert conversion.notes == ()
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in after)
    model(torch.randn(4, 3, 12, 12)).sum().backward()
    example = (torch.randn(1, 3, 9, 9),)
    assert names(Net(block), example=example, position="P3") == [
        name.replace("a", "b") for name in [one.name for one in conversion.replaced]
    ]


class Torn(nn.Module):
    """A part of a model that takes more than one input."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x * mask) if bool(mask.any()) else x
        return x


def test_what_can_be_read_is_read_in_module_order():
    assert names(Torn(Padding(8, 8), Padding(8, 12))) == ["blocks.0.a", "blocks.1.a"]
    model = MaskedNet(Padding)
    conversion = convert_xbn(model)
    assert [one.name for one in conversion.replaced] == ["stem.1", "first.a", "second.a"]
    assert conversion.notes == ()


def test_blocks_that_cannot_be_read_are_named_with_the_reason_and_read_by_an_example():
    model = MaskedNet()
    before = list(model.modules())
    with pytest.raises(
        ValueError,
        match=r"no residual block .* not read: first \(Masked: not to be traced, .*; nor run on "
        r"noise \(2, 8, 224, 224\), .*missing 1 required positional argument: 'mask'\) and 1 more"
        r"; give `example`",
    ) as raised:
        convert_xbn(model)
    assert "\n" not in str(raised.value)
    assert list(model.modules()) == before
    images, mask = torch.randn(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    expected = ["stem.1", "first.a", "second.a"]
    assert names(MaskedNet(), example=(images, mask)) == expected
    assert names(MaskedNet(), example={"x": images, "mask": mask}) == expected
    with pytest.raises(ValueError, match=r"the example does not go through the model: .*'mask'"):
        convert_xbn(model, example=images)


def test_a_model_of_which_a_part_only_is_read_says_so():
    model = MaskedNet()
    model.first = Padding(8, 8)
    conversion = convert_xbn(model)
    assert [one.name for one in conversion.replaced] == ["stem.1", "first.a"]
    assert len(conversion.notes) == 1
    assert "blocks may have been passed over; not read: second (Masked: " in str(conversion)


@pytest.mark.parametrize(
    "name", ["resnet50", "resnext50_32x4d", "mobilenet_v2", "shufflenet_v2_x1_0", "resnet18"]
)
def test_a_run_and_a_trace_see_the_same_blocks(name):
    with torch.device("meta"):
        traced, run = (torchvision.models.get_model(name, weights=None) for _ in range(2))
        example = torch.randn(2, 3, 64, 64)
    assert names(run, example=example) == names(traced)


def test_so_do_they_where_a_stage_splits_its_channels_before_its_blocks():
    timm = pytest.importorskip("timm")
    traced, run = (timm.create_model("cspresnet50") for _ in range(2))
    assert names(run, example=torch.randn(1, 3, 64, 64)) == names(traced)


def test_networks_without_blocks_are_refused_by_a_run_too():
    for name in ("densenet121", "vgg11_bn"):
        with torch.device("meta"):
            model = torchvision.models.get_model(name, weights=None)
            example = torch.randn(2, 3, 64, 64)
        with pytest.raises(ValueError, match=r"no residual block .* found in the model$"):
            convert_xbn(model, example=example)


def test_a_lazy_layer_is_not_decided_by_noise():
    model = Net(Padding)
    model.first.a = nn.LazyBatchNorm2d()
    conversion = convert_xbn(model)
    assert [one.name for one in conversion.replaced] == ["second.a"]
    assert "first (Padding: not to be traced, " in conversion.notes[0]
    assert "layers that have not seen an input yet" in conversion.notes[0]
    assert isinstance(model.first.a, nn.LazyBatchNorm2d)


def test_all_kinds_say_why_they_leave_batch_group_norm():
    for kind, options in (
        ("ghost", {"ghost_size": 2}),
        ("xbn", {}),
        ("batch-group", {"groups": 2}),
    ):
        model = bnn.convert(Net(Padding), "batch-group", groups=2).model
        with pytest.raises(
            ValueError,
            match=rf"{kind}: the model has no BatchNorm layer, only BatchGroupNorm \(stem.1, "
            r"first.a, first.b and 2 more\), whose statistics are those of groups of channels",
        ):
            bnn.convert(model, kind, **options)
