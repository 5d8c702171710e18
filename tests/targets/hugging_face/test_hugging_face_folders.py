"""A folder of transformers is a model, its weights, and how its images are prepared."""

from __future__ import annotations

import copy
import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_transformers import (
    SIZE,
    Saved,
    measured,
    reference,
    settings_for,
    transformers,
    with_statistics,
)
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.config import Settings, read_config, resolve
from bnaudit.errors import InputError
from bnaudit.targets.models import build_model
from bnaudit.targets.transforms import build_transform
from bnaudit.verbs.folder_weights import load_folder_weights
from bnaudit.verbs.init import init
from bnaudit.verbs.model_folder import completed


def test_a_folder_measures_as_its_model_does_on_the_data_its_processor_makes(
    saved: Saved, data: Path
) -> None:
    folder = saved("resnet")
    with np.load(data) as archive:
        images, labels = archive["x"], archive["y"]
    normalised = (images / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
    pixels = torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()
    dataset = TensorDataset(pixels, torch.from_numpy(labels))
    expected = bnaudit.measure(reference(folder), dataset, batch_size=16, attribute="none")
    audit = measured(settings_for(folder, data))
    assert audit.data.transform == audit.model.source == f"hf:{folder}"
    weights = folder / "model.safetensors"
    assert audit.model.checkpoint == str(weights)
    assert audit.model.checkpoint_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert len(audit.layers) == len(expected.layers) > 5
    for own, other in zip(audit.layers, expected.layers, strict=True):
        assert own.name == other.name
        assert own.total_shift.value == pytest.approx(other.total_shift.value, rel=1e-4)
        assert own.total_shift.value > 0.1
    assert audit.network.deployed.accuracy == expected.network.deployed.accuracy


@pytest.mark.parametrize("name", ["resnet", "regnet", "mobilenet_v1", "mobilenet_v2", "detr"])
def test_a_folder_gives_the_model_that_transformers_loads_from_it(saved: Saved, name: str) -> None:
    folder = saved(name)
    model = build_model(f"hf:{folder}", {}).eval()
    report = load_folder_weights(model, folder / "model.safetensors")
    expected = reference(folder).state_dict()
    assert model.state_dict().keys() == expected.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    in_file = load_file(folder / "model.safetensors")
    assert set(report.names.values()) == set(in_file)
    for key, own in report.names.items():
        assert torch.equal(in_file[own], expected[key]), key


def test_a_folder_of_timm_is_one_too(data: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = with_statistics(timm.create_model("test_resnet", num_classes=3))
    timm.models.save_for_hf(model, tmp_path)
    audit = measured(settings_for(tmp_path, data, samples=20))
    assert audit.data.transform == f"hf:{tmp_path}"
    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert [layer.name for layer in audit.layers] == [f"timm_model.{name}" for name in names]
    assert audit.model.checkpoint_sha256 is not None


def test_what_the_folder_implies_gives_way_to_what_is_said(
    saved: Saved, data: Path, tmp_path: Path
) -> None:
    folder = saved("resnet")
    spec, weights = f"hf:{folder}", folder / "model.safetensors"
    implied = completed(Settings(model=spec, data=f"npz:{data}"))
    assert (implied.checkpoint, implied.transform) == (weights, spec)
    assert completed(implied) == implied
    said = Settings(model=spec, data=f"npz:{data}", checkpoint="other.pt", transform="imagenet")
    assert completed(said) == said
    of_a_factory = completed(Settings(model=spec, data="data.py:val"))
    assert (of_a_factory.checkpoint, of_a_factory.transform) == (weights, None)
    of_shards = completed(Settings(model=spec, data="tar:val-*.tar"))
    assert of_shards.transform == spec
    another = Settings(model="torchvision:resnet18", data=f"npz:{data}")
    assert completed(another) == another


def test_a_processor_resizes_crops_scales_and_orders_channels_as_its_file_says(
    saved: Saved, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    plain = copy.copy(build_transform(f"hf:{saved('resnet')}"))
    expected = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
    np.testing.assert_allclose(plain(image).permute(1, 2, 0), expected, atol=1e-5)
    floats = torch.from_numpy(pixels / 255).permute(2, 0, 1).float()
    np.testing.assert_allclose(plain(floats).permute(1, 2, 0), expected, atol=1e-5)
    with pytest.raises(InputError, match=r"floats in 0 to 1.*prepared already"):
        plain(floats - 0.5)
    grey = plain(Image.fromarray(pixels[..., 0]))
    np.testing.assert_allclose(grey[1], (pixels[..., 0] / 255 - 0.4) / 0.25, atol=1e-5)
    again = pickle.loads(pickle.dumps(plain))
    assert torch.equal(again(image), plain(image))
    transformers.MobileViTImageProcessor(do_resize=False, do_center_crop=False).save_pretrained(
        tmp_path
    )
    flipped = build_transform(f"hf:{tmp_path}")
    np.testing.assert_allclose(flipped(image)[0], pixels[..., 2] / 255, atol=1e-6)
    cropped = build_transform(f"hf:{saved('mobilenet_v1')}")
    assert cropped(Image.new("RGB", (100, 60))).shape == (3, SIZE, SIZE)
    np.testing.assert_allclose(cropped(Image.new("RGB", (100, 60))), -1, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet", "detr"])
def test_init_takes_model_and_transform_from_the_folder(
    saved: Saved, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved(name), "net")
    shutil.copy(data, "val.npz")
    weights = Path("net/model.safetensors")
    for given in (Path("net"), weights):
        done = init(given, output=Path("bnaudit.toml"), force=True)
        assert (done.tried, done.problem, done.missing) == ("measured", None, ())
        written = resolve({}, read_config(done.path))
        assert (written.checkpoint, written.model, written.transform) == (
            weights,
            "hf:net",
            "hf:net",
        )
