"""A checkpoint in half precision, a model in float32: what is checked is what the file can hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bnaudit
from bnaudit.checkpoints.load import load_checkpoint
from bnaudit.config import Settings
from bnaudit.verbs.bars import no_bar
from bnaudit.verbs.recalibrate_file import recalibrate_file

NET = """\
import torch
from torch import nn
from torch.utils.data import TensorDataset


def model():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )


def data(seed=1, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(scale * torch.rand(64, 3, 8, 8, generator=generator))
"""


@pytest.fixture
def net(tmp_path: Path) -> dict[str, Any]:
    """What the file of the network defines."""
    (tmp_path / "net.py").write_text(NET)
    names: dict[str, Any] = {}
    exec(NET, names)  # ours
    return names


def stored(net: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = net["model"]().state_dict()
    return {k: v.to(dtype) if "running_" in k else v for k, v in state.items()}


def settings(folder: Path, **options: Any) -> Settings:
    return Settings(
        checkpoint=folder / "a.pt",
        model=f"{folder}/net.py:model",
        data=f"{folder}/net.py:data",
        verify=f"{folder}/net.py:data",
        samples="all",
        batch_size=16,
        device="cpu",
        **({"verify_arg": {"seed": 2}} | options),
    )


def recalibrated(folder: Path, **options: Any) -> Any:
    before = set(sys.modules)
    try:
        return recalibrate_file(
            settings(folder, **options),
            folder / "b.pt",
            dry_run=False,
            force=True,
            overwrite=False,
            progress=no_bar,
            say=lambda line: None,
        )
    finally:
        for name in set(sys.modules) - before:
            if str(folder) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]


def measured(net: dict[str, Any], path: Path, **options: Any) -> dict[str, float]:
    """The shift of each layer of the model in a file on the calibration data."""
    model: nn.Module = net["model"]()
    load_checkpoint(model, path)
    audit = bnaudit.measure(model, net["data"](**options), batch_size=16, attribute="none")
    return {layer.name: layer.total_shift.plain for layer in audit.audited}


@pytest.mark.parametrize("method", ["exact", "sequential"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_residual_is_that_of_the_file_that_is_written(
    dtype: torch.dtype, method: Any, net: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(stored(net, dtype), tmp_path / "a.pt")
    outcome = recalibrated(tmp_path, method=method)
    found = measured(net, tmp_path / "b.pt")
    assert found == pytest.approx(
        {layer.name: layer.calibration_after for layer in outcome.result.layers}, abs=1e-6
    )
    assert outcome.result.residual == pytest.approx(max(found.values()), abs=1e-6)
    if dtype == torch.bfloat16:
        assert outcome.result.residual > 1e-5  # rounding to 8 bits is seen, and said
    written = torch.load(tmp_path / "b.pt")
    assert {v.dtype for k, v in written.items() if "running_" in k} == {dtype}


def test_later_layers_get_what_the_rounded_ones_before_them_pass_on(
    net: dict[str, Any], tmp_path: Path
) -> None:
    """The second layer's shift is its own rounding alone, however coarse the first one's is."""
    torch.save(stored(net, torch.bfloat16), tmp_path / "a.pt")
    recalibrated(tmp_path)
    written = torch.load(tmp_path / "b.pt")
    model = net["model"]()
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in written.items()}
    )
    with torch.no_grad():
        x = model.eval()[:4](net["data"]().tensors[0])
    assert torch.equal(written["4.running_mean"], x.mean((0, 2, 3)).bfloat16())
    torch.testing.assert_close(
        written["4.running_var"].float(), x.var((0, 2, 3), correction=0), rtol=5e-3, atol=0
    )


def test_a_variance_that_the_file_cannot_hold_is_not_written(
    net: dict[str, Any], tmp_path: Path
) -> None:
    """float16 ends at 65,504."""
    torch.save(stored(net, torch.float16), tmp_path / "a.pt")
    loud = {"scale": 3000.0}
    outcome = recalibrated(tmp_path, data_arg=loud, verify_arg=loud | {"seed": 2})
    kept = {layer.name: layer.reason for layer in outcome.result.layers if not layer.changed}
    assert "not finite as float16" in (kept["1"] or "")
