"""Which models a checkpoint is told to fit, against the models that it really was saved from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor, nn

from bnaudit.checkpoints.contents import read_contents
from bnaudit.targets.outlines import Shapes, outline_of, timm_families, torchvision_specs
from bnaudit.verbs.architectures import Architectures, find_architectures
from bnaudit.verbs.fitting import fit
from bnaudit.verbs.init_model import shapes_in

timm = pytest.importorskip("timm")

Search = Callable[..., Architectures]

TIMM_SAMPLE = (
    "cspresnet50",
    "densenet121",
    "efficientnet_b0",
    "ghostnet_100",
    "hrnet_w18_small",
    "mobilenetv3_small_100",
    "regnety_002",
    "repvgg_a0",
    "res2net50_26w_4s",
    "resnet26d",
    "resnetv2_50",
    "seresnet18",
    "tf_efficientnet_b0",
    "vovnet39a",
    "xcit_nano_12_p16_224",
)


FEW = {
    "byobnet": ["gernet_s", "repvgg_a0"],
    "efficientnet": ["efficientnet_b0", "efficientnet_lite0", "tf_efficientnet_b0"],
    "resnet": ["resnet18", "resnet26d", "resnet34", "resnetblur18"],
    "vision_transformer": ["vit_tiny_patch16_224"],
}
"""Some of timm's families, with some of their models: all of them take a quarter of a minute."""


KINDS = ("resnet", "resnext", "quantized_resn", "densenet", "mobilenet", "efficientnet_b", "fcn")
"""Of torchvision: those that could be taken for a resnet, and some that could not."""

Families = Callable[[], Mapping[str, Sequence[str]]]


def searching(families: Families, of_torchvision: Callable[[], Sequence[str]]) -> Search:
    """`find_architectures` among these, which builds no model twice."""
    known: dict[tuple[str, str], Shapes] = {}

    def once(spec: str, args: dict[str, object]) -> Shapes:
        key = spec, repr(sorted(args.items()))
        if key not in known:
            known[key] = outline_of(spec, args)
        return known[key]

    def find(found: Shapes, **options: str) -> Architectures:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bnaudit.verbs.architectures.outline_of", once)
            patch.setattr("bnaudit.verbs.fitting.outline_of", once)
            patch.setattr("bnaudit.verbs.architectures.timm_families", families)
            patch.setattr("bnaudit.verbs.architectures.torchvision_specs", of_torchvision)
            return find_architectures(found, **options)

    return find


def few_of_timm() -> Mapping[str, Sequence[str]]:
    return {family: [f"timm:{name}" for name in names] for family, names in FEW.items()}


def few_of_torchvision() -> Sequence[str]:
    return [spec for spec in torchvision_specs() if spec.partition(":")[2].startswith(KINDS)]


@pytest.fixture(scope="module")
def search() -> Search:
    """Among a few models of torchvision and of timm."""
    return searching(few_of_timm, few_of_torchvision)


@pytest.fixture(scope="module")
def search_torchvision() -> Search:
    """Among all of torchvision's models and a few of timm's."""
    return searching(few_of_timm, torchvision_specs)


@pytest.fixture(scope="module")
def search_all() -> Search:
    """Among all models of both."""
    return searching(timm_families, torchvision_specs)


def shapes_of_file(model: nn.Module, path: Path, prefix: str = "") -> Shapes:
    """Saved as a checkpoint file, and read as `init` reads it."""
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"epoch": 3, "state_dict": weights}, path)
    return shapes_in(read_contents(path))


def state_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def torchvision_model(name: str, **args: object) -> nn.Module:
    """From torchvision itself, without weights."""
    builder = torchvision.models.get_model_builder(name)
    known = inspect.signature(builder).parameters
    offline = {key: None for key in ("weights", "weights_backbone") if key in known}
    return builder(**offline, **args)


def specs(found: Architectures) -> list[str]:
    return [one.spec for one in found.exact]


def test_a_resnet_of_torchvision_is_found_first_and_its_twins_are_named(
    search: Search, tmp_path: Path
) -> None:
    model = torchvision.models.resnet18()
    found = search(shapes_of_file(model, tmp_path / "checkpoint.pth"))
    assert specs(found)[0] == "torchvision:resnet18"
    assert {"timm:resnet18", "torchvision:quantized_resnet18"} <= set(specs(found))
    assert found.exact[0].args == {}
    assert found.nearest is None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_another_number_of_classes_and_a_prefix_are_seen(
    search: Search, tmp_path: Path, suffix: str
) -> None:
    model = torchvision.models.resnet18(num_classes=10)
    shapes = shapes_of_file(model, tmp_path / f"w{suffix}", "module.")
    best = search(shapes).exact[0]
    assert best.spec == "torchvision:resnet18"
    assert best.args == {"num_classes": 10}


def test_a_model_of_timm_with_other_inputs_and_outputs_is_found(
    search: Search, tmp_path: Path
) -> None:
    model = timm.create_model("resnet26d", num_classes=7, in_chans=1)
    best = search(shapes_of_file(model, tmp_path / "w.pth")).exact[0]
    assert best.spec == "timm:resnet26d"
    assert best.args == {"num_classes": 7, "in_chans": 1}


def test_of_twins_the_one_that_the_files_name_has_comes_first(search: Search) -> None:
    shapes = state_shapes(timm.create_model("tf_efficientnet_b0"))
    assert specs(search(shapes))[0] == "timm:efficientnet_b0"
    named = search(shapes, file="tf_efficientnet_b0_ns-c0e6a31c.pth")
    assert specs(named)[0] == "timm:tf_efficientnet_b0"


def test_a_changed_stem_fits_nothing_and_the_nearest_says_what_differs(
    search: Search, tmp_path: Path
) -> None:
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    found = search(shapes_of_file(model, tmp_path / "cifar.pth"))
    assert found.exact == ()
    assert found.nearest is not None
    assert found.nearest.name == "resnet18"
    assert [tensor.name for tensor in found.nearest.difference.mismatched] == ["conv1.weight"]


def test_a_network_of_ones_own_is_near_to_nothing(search: Search, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    found = search(shapes_of_file(model, tmp_path / "own.pth"))
    assert found.exact == ()
    assert found.nearest is None


@pytest.mark.parametrize(
    ("spec", "args"),
    [
        ("torchvision:deeplabv3_resnet50", {"aux_loss": True, "num_classes": 5}),
        ("torchvision:fasterrcnn_mobilenet_v3_large_fpn", {"num_classes": 3}),
        ("torchvision:retinanet_resnet50_fpn", {"num_classes": 7}),
        ("torchvision:googlenet", {"aux_logits": False}),
        ("timm:resnet18", {"num_classes": 0}),
    ],
)
def test_arguments_are_those_that_it_was_built_with(spec: str, args: dict[str, object]) -> None:
    library, _, name = spec.partition(":")
    with torch.device("meta"):
        if library == "timm":
            model = timm.create_model(name, **args)
        else:
            model = torchvision_model(name, **args)
    best = fit(spec, state_shapes(model))
    assert best.difference.exact
    assert best.args == args


def test_arguments_that_are_given_are_not_changed() -> None:
    shapes = state_shapes(torchvision.models.resnet18(num_classes=10))
    kept = fit("torchvision:resnet18", shapes, {"num_classes": 12})
    assert kept.args == {"num_classes": 12}
    assert {tensor.name for tensor in kept.difference.mismatched} == {"fc.weight", "fc.bias"}


def test_frozen_layers_without_counters_are_the_same_model() -> None:
    shapes = state_shapes(torchvision.models.resnet18())
    frozen = {name: s for name, s in shapes.items() if not name.endswith("num_batches_tracked")}
    assert fit("torchvision:resnet18", frozen).difference.exact


def test_looking_leaves_the_random_numbers_as_they_were() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    torchvision.models.regnet_y_400mf()
    after_model = torch.get_rng_state()
    outline_of("torchvision:regnet_y_400mf", {})
    outline_of("timm:resnet18", {})
    assert torch.equal(torch.get_rng_state(), after_model)
    assert not torch.equal(before, after_model)  # building it for real does use them


def test_an_outline_has_the_shapes_of_the_real_model() -> None:
    for name in ("regnet_x_400mf", "shufflenet_v2_x0_5", "mnasnet0_5"):
        real = torchvision.models.get_model(name, weights=None)
        assert dict(outline_of(f"torchvision:{name}", {})) == state_shapes(real)
        assert list(outline_of(f"torchvision:{name}", {})) == list(real.state_dict())


def _has_batch_norm(weights: dict[str, tuple[int, ...]]) -> bool:
    return any(name.endswith("running_var") for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models())
def test_every_model_of_torchvision_is_found_as_itself_or_with_a_twin_first(
    search_torchvision: Search, name: str
) -> None:
    # RegNet's builders calculate with tensors, and cannot be built on the meta device.
    with nullcontext() if name.startswith("regnet") else torch.device("meta"):
        shapes = state_shapes(torchvision_model(name))
    if not _has_batch_norm(shapes):
        pytest.skip("has no BatchNorm")
    found = search_torchvision({f"module.{tensor}": shape for tensor, shape in shapes.items()})
    spec = f"torchvision:{name}"
    assert spec in specs(found)
    twins = [one for one in found.exact if not one.args]
    assert spec in [one.spec for one in twins]
    assert specs(found)[0].startswith("torchvision:")
    for one in twins:  # whatever else is named has these tensors indeed
        assert outline_of(one.spec, {}).items() >= {
            (tensor, shape)
            for tensor, shape in shapes.items()
            if not tensor.endswith("num_batches_tracked")
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM_SAMPLE)
def test_models_of_timm_are_found_as_themselves(search_all: Search, name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=11)
    found = search_all(state_shapes(model))
    assert f"timm:{name}" in specs(found)
    own = next(one for one in found.exact if one.spec == f"timm:{name}")
    assert own.args == {"num_classes": 11}


def test_tensors_that_are_no_weights_do_not_matter(search: Search, tmp_path: Path) -> None:
    weights: dict[str, Tensor] = dict(torchvision.models.resnet18().state_dict())
    weights["n_averaged"] = torch.tensor(7)
    torch.save(weights, tmp_path / "swa.pth")
    found = search(shapes_in(read_contents(tmp_path / "swa.pth")))
    assert specs(found)[0] == "torchvision:resnet18"
