"""Domains of real images: the shared CIFAR-10 network on JPEG images, some of them spoilt."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from domain_models import as_data
from torch import Tensor

from bnaudit.results.domains import CHECKPOINT, POOLED
from bnaudit.verbs.domains import domains

SOURCE = Path(__file__).resolve().parents[1] / "engine" / "cifar_resnet.py"


def cifar() -> Any:
    """tests/engine/cifar_resnet.py."""
    spec = importlib.util.spec_from_file_location("cifar_resnet_of_domains", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not (module.DATA / "cifar10-jpeg.zip").exists():
        pytest.skip("the shared data are not here")
    return module


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def pale(x: Tensor) -> Tensor:
    """Contrast x 0.4 about the image's mean."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + 0.4 * (x - mean)


def dark(x: Tensor) -> Tensor:
    """Brightness x 0.3, of pixels before their normalisation."""
    mean, std = MEAN.view(3, 1, 1), STD.view(3, 1, 1)
    return (0.3 * (x * std + mean) - mean) / std


@pytest.mark.shared
@pytest.mark.slow
def test_pale_and_dark_images_gain_by_statistics_of_their_own() -> None:
    # Measured when this network was first audited, on 2,000 other images: 59.0% to 73.2% (pale),
    # 63.4% to 80.8% (dark), 78.6% to 78.2% as they are.
    module = cifar()
    x, y = module.read_test_images()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    views = {"plain": lambda x: x, "pale": pale, "dark": dark}
    data = {}
    for number, (name, view) in enumerate(views.items()):
        chosen = order[number * 1400 : (number + 1) * 1400]
        data[name] = as_data(view(x[chosen]), y[chosen])
    made = domains(module.trained(3), data, batch_size=100)
    gains = {one.domain: one for one in made.worth.own_gains}
    for name in ("pale", "dark"):
        assert gains[name].significant
        assert gains[name].accuracy.difference > 0.08
    assert not gains["plain"].significant
    assert made.worth.common == POOLED
    assert {"BN310"} <= {one.code for one in made.findings}
    shift = [made.cell(whose, "dark").shift for whose in (CHECKPOINT, POOLED, "dark")]
    assert shift[0] > shift[1] > shift[2]
    print(made.worth.sentence)
