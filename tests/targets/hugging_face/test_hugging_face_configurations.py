"""What a configuration names is built from what is here, or refused in one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_transformers import Saved, edited, measured, settings_for

from bnaudit.errors import InputError
from bnaudit.targets.models import build_model
from bnaudit.targets.transforms import build_transform


def test_settings_of_the_model_are_its_arguments(saved: Saved) -> None:
    spec = f"hf:{saved('resnet')}"
    assert build_model(spec, {"num_labels": 7}).config.num_labels == 7
    with pytest.raises(InputError, match=r"--model-arg num_lables.*did you mean num_labels"):
        build_model(spec, {"num_lables": 7})


def _unknown_class(config: dict[str, Any]) -> None:
    config["architectures"] = ["ResNetForImageClasification"]


def _function(config: dict[str, Any]) -> None:
    config["architectures"] = ["pipeline"]


def _unknown_kind(config: dict[str, Any]) -> None:
    config["model_type"] = "resnett"


def _own_kind(config: dict[str, Any]) -> None:
    config.update(model_type="mine", auto_map={"AutoModel": "mine.Net"})


def _own_class(config: dict[str, Any]) -> None:
    config.update(architectures=["MyNet"], auto_map={"AutoModel": "mine.Net"})


def _of_text(config: dict[str, Any]) -> None:
    config.clear()
    config.update(model_type="bert", architectures=["BertModel"])


def _wrong_value(config: dict[str, Any]) -> None:
    config["depths"] = "two"


def _backbone_on_the_hub(config: dict[str, Any]) -> None:
    config.clear()
    config.update(model_type="upernet", backbone="somebody/a-resnet", use_timm_backbone=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_unknown_class, "no model ResNetForImageClasification; did you mean ResNetForImageClass"),
        (_function, "no model pipeline"),
        (_unknown_kind, "no model_type 'resnett'; did you mean resnet"),
        (_own_kind, "needs code of its own, which bnaudit does not run"),
        (_own_class, "MyNet needs code of its own"),
        (_of_text, "BertModel is no vision model: it takes input_ids"),
        (_wrong_value, "ResNetConfig refuses the settings.*depths"),
        (_backbone_on_the_hub, "nothing is downloaded.*somebody/a-resnet.*save_pretrained"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_told_in_one_line(
    saved: Saved,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Any]], None],
    words: str,
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    folder = edited(saved("resnet"), tmp_path / "edited", change)
    with pytest.raises(InputError, match=words) as caught:
        build_model(f"hf:{folder}", {})
    assert "\n" not in str(caught.value)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_a_backbone_of_timm_is_built_without_its_weights(saved: Saved, tmp_path: Path) -> None:
    pytest.importorskip("timm")

    def as_old_files_say(config: dict[str, Any]) -> None:
        del config["backbone_config"]
        config.update(use_timm_backbone=True, backbone="resnet10t", use_pretrained_backbone=True)

    model = build_model(f"hf:{edited(saved('detr'), tmp_path / 'timm', as_old_files_say)}", {})
    assert any(type(module).__name__ == "DetrFrozenBatchNorm2d" for module in model.modules())


def test_a_configuration_without_a_class_is_that_of_a_classifier(
    saved: Saved, tmp_path: Path
) -> None:
    folder = edited(saved("regnet"), tmp_path / "bare", lambda config: config.pop("architectures"))
    assert type(build_model(f"hf:{folder}", {})).__name__ == "RegNetForImageClassification"


def test_what_is_not_there_is_told(
    saved: Saved,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved("resnet"), folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"has no preprocessor_config\.json"):
        build_transform(f"hf:{folder}")
    assert measured(settings_for(folder, data)).data.transform is None
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights"):
        measured(settings_for(folder, data))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        build_model(f"hf:{folder}", {})
    with pytest.raises(InputError, match="hf download somebody/net"):
        build_model("hf:somebody/net", {})
    with pytest.raises(InputError, match="say which folder"):
        build_model("hf:", {})
    monkeypatch.setitem(sys.modules, "transformers", None)
    for build in (lambda spec: build_model(spec, {}), build_transform):
        with pytest.raises(InputError, match=r"pip install -U 'bnaudit\[hf\]'"):
            build(f"hf:{saved('resnet')}")
