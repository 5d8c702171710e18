"""Models to be advised on, measured; and the figures of a sentence looked up anew."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.results import Audit
from bnaudit.results.advice import Advice, Sentence

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
NAMES = ("healthy", "small_batch", "lagging_ema", "averaged")


def digits(split: str) -> tuple[Tensor, Tensor]:
    with np.load(SAMPLES / "digits.npz") as file:
        x, y = file[f"x_{split}"], file[f"y_{split}"]
    return torch.from_numpy(x.reshape(-1, 1, 8, 8) / 255.0).float(), torch.from_numpy(y).long()


def sample_model(name: str) -> nn.Module:
    sys.path.insert(0, str(SAMPLES))
    try:
        import digits as module
    finally:
        sys.path.remove(str(SAMPLES))
    model = module.model()
    model.load_state_dict(torch.load(SAMPLES / f"{name}.pt", weights_only=True))
    return model.eval()


def measured(name: str, **options: Any) -> Audit:
    return bnaudit.measure(sample_model(name), TensorDataset(*digits("test")), **options)


def frozen_fine_tuned() -> nn.Module:
    """A plain stack of 12 layers, whose last epochs were trained with frozen statistics.

    Its weights have adapted to the statistics: shift is large, and new statistics hurt.
    """
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in (1, *[16] * 11):
        layers += [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    x, y = digits("train")
    for frozen, epochs, rate in ((False, 3, 0.02), (True, 3, 0.005)):
        model.train()
        if frozen:
            for module in model.modules():
                module.train(not isinstance(module, nn.BatchNorm2d))
        optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
        for _ in range(epochs):
            for drawn in torch.randperm(len(x)).split(12):
                optimiser.zero_grad()
                functional.cross_entropy(model(x[drawn]), y[drawn]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
    return model.eval()


def names(advice: Advice) -> list[str]:
    return [remedy.name for remedy in advice.remedies]


def check_figures(advice: Advice, audit: Audit) -> int:
    """Every figure of every sentence is the value at its path, as written. How many there were."""
    document = json.loads(audit.to_json())
    count = 0
    for remedy in (*advice.remedies, *advice.against):
        assert remedy.sentences, remedy.name
        for sentence in remedy.sentences:
            assert sentence.paths, sentence
            count += _check(sentence, document)
    return count


def _check(sentence: Sentence, document: Any) -> int:
    cited = [
        (path, shown, _at(document, path))
        for path, shown in zip(sentence.paths, sentence.shown, strict=True)
    ]
    left = sentence.text
    for _, shown, value in cited:
        if shown and isinstance(value, str):
            assert shown == value
            assert shown in left
            left = left.replace(shown, "", 1)
    left = left.replace("95% interval", "").replace("op-1 accuracy", "")
    figures = [one for one in cited if one[1] and not isinstance(one[2], str)]
    for path, shown, value in figures:
        left, found = re.subn(rf"(?<![\d.,]){re.escape(shown)}(?![\d%])", "", left, count=1)
        assert found, (shown, sentence.text)
        assert abs(_number(shown) - value) <= 0.5001 * _unit(shown), (path, shown, value)
    assert not re.search(r"\d", left), f"a figure without a path: {sentence.text!r}"
    return len(figures)


def _number(shown: str) -> float:
    return float(shown.rstrip("%").replace(",", "")) / (100 if shown.endswith("%") else 1)


def _unit(shown: str) -> float:
    """What the last digit is worth."""
    mantissa, _, exponent = shown.rstrip("%").replace(",", "").partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals) / (100 if shown.endswith("%") else 1)


def _at(document: Any, path: str) -> Any:
    for name, index in re.findall(r"([A-Za-z_]\w*)|\[(\d+)\]", path):
        document = document[name] if name else document[int(index)]
    return document
