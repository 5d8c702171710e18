"""The page for people who train: every piece of its code runs."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from xbn_models import cifar_resnet

import bnaudit

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def blocks() -> dict[str, str]:
    """The code of each section, by its heading."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M):
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.S)):
            found[f"{section.splitlines()[0].strip('# ')} {number}"] = code
    return found


def build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


@pytest.mark.parametrize("name", blocks())
def test_the_code_of_the_page_runs(name, tmp_path):
    model = cifar_resnet(1) if name.startswith("XBN") else build_model()
    data = TensorDataset(torch.randn(64, 3, 8, 8), torch.arange(64) % 4)
    exec(
        "from bnaudit import nn as bnn\n" + blocks()[name],
        {
            "bnaudit": bnaudit,
            "torch": torch,
            "nn": nn,
            "model": model,
            "plain_model": build_model(),
            "build_model": build_model,
            "loader": DataLoader(data, batch_size=32, shuffle=True),
            "optimizer": torch.optim.SGD(model.parameters(), 0.01),
            "path": tmp_path / "model.pt",
        },
    )


def test_every_remedy_has_a_section_that_says_when_not():
    text = PAGE.read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        assert "*Not*" in section, section.splitlines()[0]
    anchors = re.findall(r"\]\(#([^)]+)\)", text)
    headings = re.findall(r"^## (.+)$", text, flags=re.M)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    assert len(anchors) >= 7
    assert set(anchors) <= slugs
