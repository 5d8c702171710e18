"""Weights of transformers: in one file or several, under names that have changed since."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_transformers import Saved, edited, measured, recalibrated, reference, settings_for

from bnaudit.checkpoints.sidecar import sidecar_of
from bnaudit.errors import InputError
from bnaudit.targets.models import build_model
from bnaudit.verbs.folder_weights import load_folder_weights
from bnaudit.verbs.model_folder import completed


def test_a_recalibrated_copy_fits_the_data_and_only_its_statistics_differ(
    saved: Saved, data: Path, tmp_path: Path
) -> None:
    folder, target = saved("resnet"), tmp_path / "better.safetensors"
    settings = completed(settings_for(folder, data, verify_split=0.5))
    made = recalibrated(settings, target)
    assert made.path == target
    assert sidecar_of(target).is_file()
    before, after = load_file(folder / "model.safetensors"), load_file(target)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    ends = ("running_mean", "running_var")
    assert changed == {name for name in before if name.endswith(ends)}
    audit = measured(settings_for(folder, data, checkpoint=target))
    assert audit.model.checkpoint == str(target)
    was = measured(settings_for(folder, data))
    for better, worse in zip(audit.layers, was.layers, strict=True):
        assert better.total_shift.value < worse.total_shift.value / 3


def test_the_frozen_layers_of_a_detr_are_measured_and_recalibrated_under_the_names_in_its_file(
    saved: Saved, data: Path, tmp_path: Path
) -> None:
    folder = saved("detr")
    settings = completed(settings_for(folder, data, task="other", include_frozen=True))
    audit = measured(settings)
    frozen = [layer for layer in audit.layers if layer.frozen]
    assert len(frozen) == len(audit.layers) == 6
    assert {layer.kind for layer in frozen} == {"DetrFrozenBatchNorm2d"}
    assert all(layer.eps == pytest.approx(1e-5, rel=0.1) for layer in frozen)
    assert all(layer.total_shift.value > 0.05 for layer in frozen)
    target = tmp_path / "model.safetensors"
    made = recalibrated(settings, target)
    assert made.in_place
    names = [name for name in load_file(target) if name.endswith("running_mean")]
    assert all(name.startswith("model.backbone.conv_encoder.") for name in names)
    shutil.copy(folder / "config.json", tmp_path)
    loaded = reference(tmp_path).state_dict()
    for layer in made.result.layers:
        old = reference(folder).state_dict()[f"{layer.name}.running_var"]
        assert not torch.equal(loaded[f"{layer.name}.running_var"], old), layer.name


def test_sharded_weights_are_measured_as_if_they_were_one_file(
    saved: Saved, data: Path, tmp_path: Path
) -> None:
    folder = saved("resnet")
    reference(folder).save_pretrained(tmp_path, max_shard_size="2KB")
    shutil.copy(folder / "preprocessor_config.json", tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    audit, whole = measured(settings_for(tmp_path, data)), measured(settings_for(folder, data))
    assert [one.total_shift.value for one in audit.layers] == [
        one.total_shift.value for one in whole.layers
    ]
    assert audit.model.checkpoint == str(index)
    lines = "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted([index, *shards])
    )
    assert audit.model.checkpoint_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    with pytest.raises(InputError, match=r"shards.*save one file"):
        recalibrated(completed(settings_for(tmp_path, data)), tmp_path / "out.safetensors")
    shards[0].unlink()
    with pytest.raises(InputError, match=f"{shards[0].name}: no such file"):
        measured(settings_for(tmp_path, data))
    for text, words in (
        ("{}", "not an index"),
        ('{"weight_map": {"a": "../b.safetensors"}}', "outside its folder"),
        (json.dumps({"weight_map": {"lost": shards[1].name}}), "not in the shards.* lost"),
    ):
        index.write_text(text)
        with pytest.raises(InputError, match=words):
            measured(settings_for(tmp_path, data))


def test_weights_of_torch_save_are_read_without_running_code(saved: Saved, tmp_path: Path) -> None:
    folder, file = saved("resnet"), tmp_path / "pytorch_model.bin"
    state = load_file(folder / "model.safetensors")
    torch.save(state, file)
    model = build_model(f"hf:{folder}", {})
    assert load_folder_weights(model, file).loaded == len(model.state_dict())
    torch.save({**state, "code": _Code()}, file)
    with pytest.raises(InputError, match="needs code to load"):
        load_folder_weights(model, file)


class _Code:
    """What only unpickling can make."""


def test_weights_that_do_not_fit_are_refused_unless_allowed(
    saved: Saved, data: Path, tmp_path: Path
) -> None:
    folder = edited(
        saved("resnet"), tmp_path / "other", lambda config: config.update(hidden_sizes=[8, 16])
    )
    with pytest.raises(InputError, match="of another shape"):
        measured(settings_for(folder, data))
    audit = measured(settings_for(folder, data, allow_mismatch=True))
    assert any("wrong shape" in note for note in audit.model.checkpoint_notes)
