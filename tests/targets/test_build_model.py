from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import torchvision
from torch import nn

from bnaudit.errors import InputError
from bnaudit.targets.models import build_model

Write = Callable[..., Path]

FILE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.bn = nn.BatchNorm2d(width)

ready = Net(9)

def build(width=4): return Net(width)
def the_class(): return Net
def a_pair(): return Net(), 224
def weights(): return Net().state_dict()
def forgets(): Net()
def number(): return 3
def fails(): raise RuntimeError('no\\nluck')
"""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(f"a download: {args}")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    for module in list(sys.modules.values()):
        if module.__name__.startswith("torchvision") and "load_state_dict_from_url" in vars(module):
            monkeypatch.setattr(module, "load_state_dict_from_url", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "quantized_resnet18", "ssdlite320_mobilenet_v3_large", "ResNet18"]
)
def test_torchvision_models_are_built_without_a_download(name: str) -> None:
    model = build_model(f"torchvision:{name}", {})
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.usefixtures("offline")
def test_a_torchvision_function_named_by_its_module_downloads_nothing_either() -> None:
    build_model("torchvision.models.segmentation:lraspp_mobilenet_v3_large", {})


@pytest.mark.parametrize("name", torchvision.models.list_models())
def test_every_torchvision_builder_is_told_to_download_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import inspect

    builder = torchvision.models.get_model_builder(name)
    given: dict[str, object] = {}

    def record(**kwargs: object) -> nn.Module:
        given.update(kwargs)
        return nn.Identity()

    record.__signature__ = inspect.signature(builder)  # type: ignore[attr-defined]
    monkeypatch.setattr(torchvision.models, "get_model_builder", lambda _: record)
    build_model(f"torchvision:{name}", {})
    for parameter in inspect.signature(builder).parameters:
        if parameter.startswith("weights"):
            assert given[parameter] is None
        if parameter == "quantize":
            assert given[parameter] is False


def test_weights_that_the_user_names_reach_the_builder(offline: None) -> None:
    with pytest.raises(AssertionError, match="a download"):
        torchvision.models.resnet18(weights="DEFAULT")
    with pytest.raises(InputError, match="a download"):
        build_model("torchvision:resnet18", {"weights": "DEFAULT"})


def test_arguments_reach_a_torchvision_builder() -> None:
    assert build_model("torchvision:resnet18", {"num_classes": 7}).fc.out_features == 7


def test_a_torchvision_model_is_built_without_warnings(recwarn: pytest.WarningsRecorder) -> None:
    build_model("torchvision:googlenet", {})
    assert not [warning for warning in recwarn if warning.category is FutureWarning]


def test_timm_models_are_built_without_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    given: dict[str, object] = {}

    def create_model(model_name: str, **kwargs: object) -> nn.Module:
        given.update(kwargs, model_name=model_name)
        return nn.Identity()

    monkeypatch.setattr(timm, "create_model", create_model)
    build_model("timm:resnet18.a1_in1k", {"num_classes": 3})
    assert given == {"model_name": "resnet18.a1_in1k", "pretrained": False, "num_classes": 3}


def test_a_timm_model_is_built() -> None:
    pytest.importorskip("timm")
    model = build_model("timm:resnet18", {"num_classes": 3})
    assert model.num_classes == 3


def test_timm_that_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'bnaudit\[timm\]'"):
        build_model("timm:resnet18", {})


@pytest.mark.parametrize(
    ("name", "args", "width"),
    [("build", {}, 4), ("build", {"width": 6}, 6), ("Net", {"width": 2}, 2), ("ready", {}, 9)],
)
def test_a_file_gives_a_model(write: Write, name: str, args: dict[str, object], width: int) -> None:
    model = build_model(f"{write('net.py', FILE)}:{name}", args)
    assert model.bn.num_features == width


@pytest.mark.parametrize(
    ("spec", "args", "words"),
    [
        ("resnet50", {}, ["torchvision:NAME", "did you mean torchvision:resnet50?"]),
        ("torchvision:resnet5", {}, ["no model called resnet5", "did you mean resnet50"]),
        ("torchvision:qqqq", {}, ["no model called qqqq", "list_models"]),
        ("torchvision:resnet18", {"depth": 3}, ["TypeError", "depth"]),
        ("{dir}/net.py", {}, ["net.py:NAME"]),
        ("{dir}/net.py:build", {"widht": 3}, ["--model-arg widht", "accepts width"]),
        ("{dir}/net.py:ready", {"width": 3}, ["--model-arg width", "a model already"]),
        ("{dir}/net.py:the_class", {}, ["the class Net", "return Net()"]),
        ("{dir}/net.py:a_pair", {}, ["a tuple (Net, int)", "alone"]),
        ("{dir}/net.py:weights", {}, ["OrderedDict", "state_dict", "torch.nn.Module"]),
        ("{dir}/net.py:forgets", {}, ["returned nothing", "`return` missing"]),
        ("{dir}/net.py:number", {}, ["an int", "torch.nn.Module"]),
        ("{dir}/net.py:fails", {}, ["RuntimeError: no luck", "net.py:17"]),
    ],
)
def test_a_wrong_model_is_told_in_one_line(
    write: Write, tmp_path: Path, spec: str, args: dict[str, object], words: list[str]
) -> None:
    write("net.py", FILE)
    with pytest.raises(InputError, match="--model") as caught:
        build_model(spec.format(dir=tmp_path), args)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18x", "hf-hub:timm/resnet18.a1_in1k", "resnet18.nonsense"])
def test_an_unknown_timm_model_is_told_in_one_line(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=f"--model timm:{name}"):
        build_model(f"timm:{name}", {})
