"""Tiny models of transformers with statistics that no data have, and what is done with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnaudit.config import Settings
from bnaudit.results import Audit
from bnaudit.verbs.bars import no_bar
from bnaudit.verbs.measure_prepared import measure_prepared
from bnaudit.verbs.policy import policy_of
from bnaudit.verbs.prepare import prepare
from bnaudit.verbs.recalibrate_file import Outcome, recalibrate_file

transformers = pytest.importorskip("transformers", minversion="5.6")

IMAGES = 48
SIZE = 32

Saved = Callable[[str], Path]


def resnet() -> nn.Module:
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3
        )
    )


def regnet() -> nn.Module:
    return transformers.RegNetForImageClassification(
        transformers.RegNetConfig(
            embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], groups_width=4, num_labels=3
        )
    )


def mobilenet_v1() -> nn.Module:
    return transformers.MobileNetV1ForImageClassification(
        transformers.MobileNetV1Config(depth_multiplier=0.25, num_labels=3)
    )


def mobilenet_v2() -> nn.Module:
    return transformers.MobileNetV2ForImageClassification(
        transformers.MobileNetV2Config(depth_multiplier=0.25, num_labels=3)
    )


def detr() -> nn.Module:
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "num_queries": 4, "num_labels": 3}
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            use_timm_backbone=False, backbone_config=backbone, **heads, **widths, **layers
        )
    )


def with_statistics(model: nn.Module) -> nn.Module:
    """Statistics as no data have them."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.3)
        elif name.endswith("num_batches_tracked"):
            value.fill_(100)
    return model.eval()


def settings_for(folder: Path, data: Path, **more: Any) -> Settings:
    few = {"samples": "all", "attribute": "none", "batch_size": 16}
    return Settings(model=f"hf:{folder}", data=f"npz:{data}", **(few | more))


def measured(settings: Settings) -> Audit:
    return measure_prepared(prepare(settings, IMAGES), settings, policy_of(settings), no_bar)


def edited(folder: Path, copied_to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the folder, with other settings of its model."""
    shutil.copytree(folder, copied_to)
    file = copied_to / "config.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))
    return copied_to


def reference(folder: Path) -> nn.Module:
    """The model as transformers itself loads it."""
    classes = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(transformers, classes[0]).from_pretrained(folder).eval()


def recalibrated(settings: Settings, target: Path) -> Outcome:
    return recalibrate_file(
        settings,
        target,
        dry_run=False,
        force=True,
        overwrite=False,
        progress=no_bar,
        say=lambda _: None,
    )
