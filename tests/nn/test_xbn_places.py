"""Which layers XBN replaces, against the names that the authors' descriptions give."""

import pytest
import torch
import torchvision
from torch import nn
from xbn_models import cifar_resnet, digits_net

from bnaudit.nn.xbn import convert_xbn


def built(name: str) -> nn.Module:
    with torch.device("meta"):  # names and shapes only
        return torchvision.models.get_model(name, weights=None)


def names(model: nn.Module, **options) -> list[str]:
    return [one.name for one in convert_xbn(model, **options).replaced]


def resnet_names(blocks: list[int], norm: str) -> list[str]:
    stages = enumerate(blocks, start=1)
    return ["bn1", *(f"layer{stage}.{i}.{norm}" for stage, count in stages for i in range(count))]


MOBILENET = ["features.1.conv.0.1", *(f"features.{i}.conv.1.1" for i in range(2, 18))]
SHUFFLENET = [
    name
    for stage, count in ((2, 4), (3, 8), (4, 4))
    for i in range(count)
    for name in ([f"stage{stage}.0.branch1.1"] if i == 0 else []) + [f"stage{stage}.{i}.branch2.4"]
]
BOTTLENECKS = [3, 4, 6, 3]


@pytest.mark.parametrize(
    ("model", "options", "expected", "count"),
    [
        ("resnet50", {}, resnet_names(BOTTLENECKS, "bn2"), 17),
        ("resnet50", {"stem": False}, resnet_names(BOTTLENECKS, "bn2")[1:], 16),
        ("resnet50", {"position": "P1"}, resnet_names(BOTTLENECKS, "bn1"), 17),
        ("resnet50", {"position": "P3"}, resnet_names(BOTTLENECKS, "bn3"), 17),
        ("resnext50_32x4d", {}, resnet_names(BOTTLENECKS, "bn2"), 17),
        ("resnext50_32x4d", {"stem": False}, resnet_names(BOTTLENECKS, "bn2")[1:], 16),
        ("wide_resnet50_2", {}, resnet_names(BOTTLENECKS, "bn2"), 17),
        ("mobilenet_v2", {}, MOBILENET, 17),
        ("shufflenet_v2_x1_0", {}, SHUFFLENET, 19),
        ("resnet18", {"position": "P1"}, resnet_names([2, 2, 2, 2], "bn1"), 9),
        ("resnet18", {"position": "P2"}, resnet_names([2, 2, 2, 2], "bn1"), 9),
        ("resnet18", {"position": "P3"}, resnet_names([2, 2, 2, 2], "bn2"), 9),
        ("resnet34", {}, resnet_names([3, 4, 6, 3], "bn1"), 17),
    ],
)
def test_the_layers_are_those_of_the_authors_code(model, options, expected, count):
    assert len(expected) == count
    assert names(built(model), **options) == expected


def test_the_groups_are_the_authors():
    def groups(model: str) -> set[tuple[int, int]]:
        modules = convert_xbn(built(model)).model.modules()
        return {(m.num_channels, m.num_groups) for m in modules if isinstance(m, nn.GroupNorm)}

    assert groups("resnet50") == {(64, 64), (128, 64), (256, 64), (512, 64)}
    assert {count for _, count in groups("mobilenet_v2")} == {16}
    assert groups("shufflenet_v2_x1_0") == {(24, 24), (58, 29), (116, 29), (232, 29)}


def test_a_norm_after_the_addition_is_the_blocks_last():
    first = ["bn", *(f"blocks.{i}.bn1" for i in range(4))]
    assert names(digits_net(), position="P1") == first
    assert names(digits_net(), position="P2") == first
    assert names(digits_net(), position="P3") == ["bn", *(f"blocks.{i}.bn2" for i in range(4))]


def test_a_shortcut_that_pads_channels_is_one():
    expected = ["bn1", *(f"layer{stage}.{i}.bn1" for stage in (1, 2, 3) for i in range(3))]
    assert names(cifar_resnet(3)) == expected
    assert names(cifar_resnet(3), example=torch.randn(2, 3, 32, 32)) == expected


def test_models_of_timm_are_read_by_the_same_structure():
    timm = pytest.importorskip("timm")
    resnet26d = names(timm.create_model("resnet26d"))
    assert resnet26d == resnet_names([2, 2, 2, 2], "bn2")  # the last of its stem's three norms

    efficientnet = timm.create_model("efficientnet_b0")
    after = [
        name.replace("conv_dw", "bn1" if name.startswith("blocks.0.") else "bn2")
        for name, module in efficientnet.named_modules()
        if name.endswith("conv_dw")
    ]
    assert len(after) == 16
    assert names(efficientnet) == after


def test_networks_without_such_blocks_are_refused_and_stay_as_they_are():
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    parallel = torchvision.models.googlenet(weights=None, init_weights=False)
    for model in (plain, parallel, built("densenet121"), built("vgg11_bn")):
        before = list(model.modules())
        with pytest.raises(ValueError, match="no residual block"):
            convert_xbn(model)
        assert list(model.modules()) == before
    with pytest.raises(ValueError, match="no BatchNorm layer"):
        convert_xbn(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="position P1: the model has depthwise blocks only"):
        convert_xbn(built("mobilenet_v2"), position="P1")
