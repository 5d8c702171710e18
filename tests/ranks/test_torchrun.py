"""The commands under torchrun: one rank prints and writes what one process would."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

SAMPLES = Path(__file__).parents[2] / "sample_models"
SHARED = Path(__file__).parents[3] / "shared" / "data"
SECONDS = 300


def bnaudit(ranks: int, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--nproc-per-node", str(ranks), "-m"]
    command = [*start, "bnaudit", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, cwd=folder, check=False
    )


def test_one_rank_prints_one_document_and_it_is_that_of_one_process(tmp_path: Path) -> None:
    words = (
        *("measure", str(SAMPLES / "small_batch.pt"), "--config", str(SAMPLES / "bnaudit.toml")),
        *("--samples", "333", "--attribute", "64", "--json"),
    )
    one, two = (bnaudit(ranks, *words, folder=tmp_path) for ranks in (1, 2))
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert_same(json.loads(one.stdout), json.loads(two.stdout))
    assert not list(tmp_path.iterdir())


def assert_same(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one.keys() - {"run_time", "memory", "written"}:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{number}]")
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-6, abs=1e-9), path
    else:
        assert other == one, path


MODEL = """
import torch
from torchvision import transforms

from cifar_resnet import CifarResNet


def resnet20():
    return CifarResNet(3)


def transform():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
"""


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 1,001 of the shared images, and the network of the shared checkpoints."""
    folder = tmp_path_factory.mktemp("cifar")
    net = Path(__file__).parents[1] / "engine" / "cifar_resnet.py"
    (folder / "cifar_resnet.py").write_text(net.read_text())
    (folder / "nets.py").write_text(MODEL)
    with zipfile.ZipFile(SHARED / "cifar10-jpeg.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("test/") and n.endswith("g"))
        for name in names[::9][:1001]:
            archive.extract(name, folder)
    return folder


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("verb", ["measure", "recalibrate"])
def test_a_real_network_on_1001_images_is_the_same_on_two_and_three_ranks(
    verb: str, cifar: Path
) -> None:
    checkpoint = SHARED / "resnet20-12fca82f.th"
    words = (
        *(verb, str(checkpoint), "--model", "nets.py:resnet20", "--transform", "nets.py:transform"),
        *("--data", "imagefolder:test", "--samples", "all"),
    )
    found, written = {}, {}
    for ranks in (1, 2, 3):
        if verb == "measure":
            done = bnaudit(ranks, *words, "-o", f"on{ranks}", "--no-plots", folder=cifar)
            assert done.returncode == 0, done.stderr
            found[ranks] = json.loads((cifar / f"on{ranks}" / "audit.json").read_text())
            continue
        done = bnaudit(ranks, *words, "-o", f"on{ranks}.th", "--force", "--json", folder=cifar)
        assert done.returncode == 0, done.stderr
        found[ranks] = json.loads(done.stdout)
        written[ranks] = torch.load(cifar / f"on{ranks}.th", map_location="cpu")["state_dict"]
    for ranks in (2, 3):
        assert_same(found[1], found[ranks])
        for name, values in written.get(1, {}).items():
            torch.testing.assert_close(written[ranks][name], values, rtol=1e-6, atol=1e-7)
