from __future__ import annotations

import io
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from bnaudit.errors import InputError
from bnaudit.targets.data import DataTarget, Loaded, SkipBad, open_data
from bnaudit.targets.decoding import decoded_on, decoded_on_gpu
from bnaudit.targets.jpeg import is_plain_jpeg
from bnaudit.targets.transforms import build_transform

CPU = torch.device("cpu")
GREY_LEVEL = 1 / 255 / 0.224  # of the imagenet transform's output


def photograph(seed: int, mode: str = "RGB", size: tuple[int, int] = (90, 70)) -> Image.Image:
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    coarse = rng.integers(0, 256, (5, 6, channels), dtype=np.uint8)
    image = Image.fromarray(coarse[:, :, 0] if channels == 1 else coarse[:, :, :3])
    return image.resize(size, Image.Resampling.BICUBIC).convert(mode)


def file_of(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "0.jpg": file_of(photograph(0)),
    "1.jpg": file_of(photograph(1, "L")),
    "2.jpg": file_of(photograph(2, "CMYK")),
    "3.jpg": file_of(photograph(3), progressive=True, quality=95),
    "4.jpg": file_of(photograph(4, size=(120, 80)), subsampling=0),
    "5.png": file_of(photograph(5, "RGB"), "PNG"),
    "6.png": file_of(photograph(6, "L"), "PNG"),
    "7.webp": file_of(photograph(7), "WEBP", lossless=True),
}
"""Of every kind that an image folder may hold."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        file = tmp_path / "set" / f"class{int(name[0]) % 3}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "set"


def in_one_batch(target: DataTarget, workers: int = 0) -> Loaded:
    batch = list(range(len(target.dataset)))
    (loaded,) = DataLoader(
        target.dataset,
        batch_sampler=[batch],
        collate_fn=SkipBad(target.collate),
        num_workers=workers,
    )
    return target.finish(loaded) if target.finish else loaded


def both_ways(spec: str, transform: Callable[[Any], Any] | None) -> tuple[Loaded, Loaded]:
    target = open_data(spec, {}, transform)
    on_device = decoded_on(target, CPU, "--decode gpu")
    return in_one_batch(target), in_one_batch(on_device, workers=1)


def as_tar(folder: Path) -> str:
    with tarfile.open(folder.parent / "s.tar", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.add(file, file.name)
            label = folder.parent / f"{file.stem}.cls"
            label.write_text(file.parent.name[-1])
            archive.add(label, label.name)
    return f"tar:{folder.parent}/s.tar"


def as_parquet(folder: Path) -> str:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = sorted(folder.rglob("*.*"))
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": [int(file.parent.name[-1]) for file in files],
    }
    parquet.write_table(pa.table(rows), folder.parent / "a.parquet")
    return f"parquet:{folder.parent}/a.parquet"


@pytest.mark.parametrize("kept", [lambda folder: f"imagefolder:{folder}", as_tar, as_parquet])
def test_images_decoded_on_the_device_are_those_that_pillow_decodes(
    folder: Path, kept: Callable[[Path], str]
) -> None:
    by_pillow, on_device = both_ways(kept(folder), build_transform("imagenet"))
    assert on_device.kept == by_pillow.kept == tuple(range(8))
    assert on_device.batch[0].shape == (8, 3, 224, 224)
    assert torch.equal(on_device.batch[1], by_pillow.batch[1])
    difference = (on_device.batch[0] - by_pillow.batch[0]).abs()
    assert difference.max() <= 2.5 * GREY_LEVEL
    assert difference.mean() <= 0.3 * GREY_LEVEL


def test_without_a_transform_images_of_one_size_come_out_alike_and_others_are_told(
    tmp_path: Path,
) -> None:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(FILES["0.jpg"])
    by_pillow, on_device = both_ways(f"imagefolder:{tmp_path}", None)
    torch.testing.assert_close(on_device.batch, by_pillow.batch, rtol=0, atol=1.01 / 255)
    (tmp_path / "3.jpg").write_bytes(FILES["4.jpg"])
    by_pillow, on_device = both_ways(f"imagefolder:{tmp_path}", None)
    assert on_device.error == by_pillow.error
    assert "give --transform" in str(on_device.error)


def test_what_cannot_be_decoded_is_left_out_and_named_as_pillow_names_it(folder: Path) -> None:
    whole = (folder / "class0/0.jpg").read_bytes()
    (folder / "class0/0.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "class0/3.jpg").write_bytes(b"")
    (folder / "class1/1.jpg").write_bytes(b"\xff\xd8 nothing \xff\xd9")
    (folder / "class1/4.jpg").write_bytes(whole[:200] + bytes(80) + b"\xff\xd9")
    by_pillow, on_device = both_ways(f"imagefolder:{folder}", build_transform("imagenet"))
    assert {bad.source for bad in by_pillow.bad} >= {
        f"{folder}/class0/0.jpg",
        f"{folder}/class0/3.jpg",
        f"{folder}/class1/1.jpg",
    }
    assert on_device.kept == by_pillow.kept
    assert {bad.source for bad in on_device.bad} == {bad.source for bad in by_pillow.bad}
    assert torch.equal(on_device.batch[1], by_pillow.batch[1])


def test_a_batch_of_nothing_but_unreadable_files_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    target = decoded_on(open_data(f"imagefolder:{tmp_path}", {}, None), CPU, "--decode gpu")
    loaded = in_one_batch(target)
    assert (loaded.batch, loaded.kept, len(loaded.bad), loaded.error) == (None, (), 1, None)


def from_pillow_only(image: Image.Image) -> torch.Tensor:
    return torch.tensor(list(image.tobytes())).float()


def by_numpy(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).astype(np.float32))


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (from_pillow_only, "takes Pillow images only"),
        (by_numpy, "does not make the same of a tensor"),
        (lambda image: image, "does not make the same of a tensor"),
        (lambda image: v2.functional.to_dtype(v2.functional.to_image(image)) * 1.0, None),
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]), None),
    ],
)
def test_a_transform_that_needs_pillow_images_is_refused_in_one_line(
    tmp_path: Path, transform: Callable[[Any], Any], said: str | None
) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES["0.jpg"])
    target = open_data(f"imagefolder:{tmp_path}", {}, transform)
    on_device = decoded_on(target, CPU, "--decode gpu")
    if said is None:
        assert in_one_batch(on_device).batch.shape == (1, 3, 70, 90)
        return
    with pytest.raises(InputError, match=said) as caught:
        in_one_batch(on_device)
    assert "\n" not in str(caught.value)
    assert "use --decode cpu" in str(caught.value)


def test_data_that_are_not_encoded_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"npz:.* is not; use --decode cpu"):
        decoded_on(open_data(f"npz:{tmp_path}/a.npz", {}, None), CPU, "--decode gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_cannot_decode_is_refused_in_one_line(folder: Path) -> None:
    target = open_data(f"imagefolder:{folder}", {}, None)
    with pytest.raises(InputError, match=r"there is no CUDA device here.*cpu") as caught:
        decoded_on(target, torch.device("cuda"), "--decode gpu")
    assert "\n" not in str(caught.value)


def test_a_run_on_the_cpu_decodes_there(folder: Path) -> None:
    target = open_data(f"imagefolder:{folder}", {}, None)
    with pytest.raises(InputError, match="needs a CUDA device, and the run is on cpu"):
        decoded_on_gpu(target, CPU)


def test_files_travel_to_spawned_processes(folder: Path) -> None:
    target = decoded_on(open_data(f"imagefolder:{folder}", {}, None), CPU, "--decode gpu")
    sample = pickle.loads(pickle.dumps(target.dataset))[0]
    assert sample.file.numpy().tobytes() == FILES["0.jpg"]


def test_only_whole_jpegs_of_usual_kinds_are_plain() -> None:
    plain = {name: is_plain_jpeg(content) for name, content in FILES.items()}
    assert [name for name in plain if plain[name]] == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
    thumbnail = Image.Exif()
    thumbnail[270] = "x" * 5000
    whole = file_of(photograph(0), exif=thumbnail)
    assert is_plain_jpeg(whole)
    assert is_plain_jpeg(whole + bytes(300))
    assert not is_plain_jpeg(whole[:-2])
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        assert is_plain_jpeg(bytes(damaged)) in (True, False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_decodes_what_pillow_decodes(folder: Path) -> None:
    target = open_data(f"imagefolder:{folder}", {}, build_transform("imagenet"))
    by_pillow = in_one_batch(target)
    on_device = in_one_batch(decoded_on(target, torch.device("cuda"), "--decode gpu"), workers=2)
    assert on_device.batch[0].device.type == "cuda"
    assert torch.equal(on_device.batch[1], by_pillow.batch[1])
    difference = (on_device.batch[0].cpu() - by_pillow.batch[0]).abs()
    assert difference.mean() <= GREY_LEVEL  # decoders interpolate colours differently at edges
