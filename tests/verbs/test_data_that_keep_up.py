from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from bnaudit.config import Settings, read_config, resolve
from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions
from bnaudit.errors import InputError
from bnaudit.targets.data import open_data
from bnaudit.targets.decoding import decoded_on
from bnaudit.targets.transforms import build_transform
from bnaudit.verbs.prepare import reader_for
from bnaudit.verbs.request import request_of
from bnaudit.verbs.samples import MapReader

CPU = torch.device("cpu")


def images(folder: Path) -> str:
    rng = np.random.default_rng(0)
    for i in range(11):
        file = folder / f"class{i % 2}/{i:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((90, 70)).save(file)
    (folder / "class0/04.jpg").write_bytes(b"no image")
    return f"imagefolder:{folder}"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_reader_gives_the_same_batches_wherever_they_are_decoded(
    tmp_path: Path, workers: int
) -> None:
    target = open_data(images(tmp_path), {}, build_transform("imagenet"))
    on_device = decoded_on(target, CPU, "--decode gpu")
    here = MapReader(target.dataset, 4, None, 0, skip_bad=True)
    there = MapReader(
        on_device.dataset,
        4,
        None,
        0,
        workers,
        on_device.collate,
        skip_bad=True,
        finish=on_device.finish,
    )
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.groups, other.groups)
        assert torch.equal(one.data[1], other.data[1])
        torch.testing.assert_close(one.data[0], other.data[0], rtol=0, atol=0.05)
    assert torch.equal(here.order, there.order)
    assert here.skipped() == there.skipped()
    assert "04.jpg" in here.skipped()[0]


def test_decode_gpu_without_one_is_refused(tmp_path: Path) -> None:
    spec = images(tmp_path)
    settings = resolve({"data": spec, "decode": "gpu", "skip_bad": True}, None)
    target = open_data(spec, {}, None)
    here = Conditions(default_forward, CPU)
    with pytest.raises(InputError, match="--decode gpu needs a CUDA device, and the run is on cpu"):
        reader_for(target, settings, here, None, f"--data {spec}")


class Deadly(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(2)


def test_a_process_that_is_killed_ends_a_pass_in_one_line() -> None:
    with pytest.raises(InputError, match="most likely for want of memory"):
        list(MapReader(Deadly(), 4, None, 0, workers=1))


def test_every_pattern_of_a_file_is_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "bnaudit.toml"
    file.write_text('data = "tar:a-{0..9}.tar::/b/*.tar::c.tar"\nverify = "parquet:v/*.parquet"\n')
    settings = resolve({}, read_config(file))
    assert settings.data == f"tar:{tmp_path}/a-{{0..9}}.tar::/b/*.tar::{tmp_path}/c.tar"
    assert settings.verify == f"parquet:{tmp_path}/v/*.parquet"


def test_commands_say_what_is_not_the_default_of_loading() -> None:
    def how(**given: object) -> tuple[str, ...]:
        request = request_of(Settings(checkpoint=Path("a.pt"), **given))
        return () if request is None else request.how

    assert how() == ()
    assert how(workers=0, decode="gpu") == ("--workers", "0", "--decode", "gpu")
