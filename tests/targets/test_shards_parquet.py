from __future__ import annotations

import gc
import io
import json
import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

import bnaudit
from bnaudit.errors import InputError
from bnaudit.targets import row_groups
from bnaudit.targets.data import DataTarget, SkipBad, open_data

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels(seed: int) -> torch.Tensor:
    with Image.open(io.BytesIO(picture(seed))) as image:
        return pil_to_tensor(image.convert("RGB")).float() / 255


def as_hugging_face(start: int, stop: int) -> dict[str, Any]:
    return {
        "image": [{"bytes": picture(i), "path": f"{i}.png"} for i in range(start, stop)],
        "label": [i % 7 for i in range(start, stop)],
    }


def write_rows(file: Path, columns: dict[str, Any], rows: int = 4) -> Path:
    parquet.write_table(pa.table(columns), file, row_group_size=rows)
    return file


def opened(pattern: object, **args: object) -> DataTarget:
    return open_data(f"parquet:{pattern}", args, None)


@pytest.fixture(params=["in memory", "unpacked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Row groups are kept either way, whatever their size."""
    monkeypatch.setattr(row_groups, "MEMORY", 2**20 if request.param == "in memory" else 0)
    return str(request.param)


def test_rows_of_many_files_are_one_set_that_is_read_in_any_order(tmp_path: Path, way: str) -> None:
    write_rows(tmp_path / "val-00000-of-00003.parquet", as_hugging_face(0, 9))
    write_rows(tmp_path / "val-00001-of-00003.parquet", as_hugging_face(9, 10))
    write_rows(tmp_path / "val-00002-of-00003.parquet", as_hugging_face(10, 23))
    target = opened(tmp_path / "val-*.parquet")
    assert target.labelled
    assert "23 images in 3 Parquet files, 8 row groups of at most 4 rows" in target.description
    assert ("unpacked" in target.description) == (way == "unpacked")
    for index in torch.randperm(23, generator=torch.Generator().manual_seed(1)).tolist():
        image, label = target.dataset[index]
        assert label == index % 7
        assert torch.equal(image, pixels(index))
    assert target.dataset.dataset.source_of(9) == f"{tmp_path}/val-00001-of-00003.parquet row 0"


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_is_read_once_by_any_number_of_processes(
    tmp_path: Path, way: str, workers: int
) -> None:
    dataset = opened(write_rows(tmp_path / "a.parquet", as_hugging_face(0, 23))).dataset
    dataset[3]  # the file is open before the processes are forked
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0)).tolist()
    loader = DataLoader(
        dataset, batch_size=4, sampler=order, num_workers=workers, collate_fn=SkipBad()
    )
    images = torch.cat([loaded.batch[0] for loaded in loader])
    assert torch.equal(images, torch.stack([pixels(i) for i in order]))
    again = pickle.loads(pickle.dumps(dataset))  # as a spawned process gets it
    assert torch.equal(again[22][0], pixels(22))


def test_a_row_group_is_read_from_parquet_once_and_what_is_unpacked_goes_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "MEMORY", 0)
    monkeypatch.setattr(row_groups.tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    file = write_rows(tmp_path / "a.parquet", as_hugging_face(0, 8))
    target = opened(file)
    target.dataset[1]
    target.dataset[5]
    file.rename(tmp_path / "away.parquet")
    assert torch.equal(target.dataset[0][0], pixels(0))
    assert torch.equal(target.dataset[7][0], pixels(7))
    (folder,) = (tmp_path / "scratch").iterdir()
    assert len(list(folder.iterdir())) == 2
    del target
    gc.collect()
    assert not folder.exists()


def test_a_full_disk_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "MEMORY", 0)
    monkeypatch.setattr(row_groups.tempfile, "tempdir", str(tmp_path))
    target = opened(write_rows(tmp_path / "a.parquet", as_hugging_face(0, 8)))
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    folder.rmdir()
    folder.write_text("")  # nothing can be written into it any more
    with pytest.raises(NotADirectoryError):
        (folder / "0").write_bytes(b"")
    for index in (0, 7, 1):
        assert torch.equal(target.dataset[index][0], pixels(index))
    with monkeypatch.context() as full:
        full.setattr(row_groups.shutil, "disk_usage", lambda _: Usage(free=0))
        assert "unpacked" not in opened(tmp_path / "a.parquet").description


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_images_may_be_plain_binary_and_labels_absent(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.parquet", {"png": [picture(i) for i in range(5)]})
    target = opened(file)
    assert target.labelled is False
    assert "without labels" in target.description
    assert torch.equal(target.dataset[4], pixels(4))


def test_columns_are_named_where_they_are_called_otherwise(tmp_path: Path) -> None:
    rows = as_hugging_face(0, 3)
    columns = {"front": rows["image"], "back": rows["image"][::-1], "fine_label": rows["label"]}
    file = write_rows(tmp_path / "a.parquet", columns)
    image, label = opened(file, image="back", label="fine_label").dataset[0]
    assert (label, torch.equal(image, pixels(2))) == (0, True)
    for args, said in [
        ({}, r"image=COLUMN; it has front \(struct<bytes: binary, path: string>\), back"),
        ({"image": "bak"}, "no column bak.*did you mean back?"),
        ({"image": "back", "label": "fin_label"}, "no column fin_label.*did you mean fine_label?"),
        ({"image": "fine_label"}, "fine_label is int64: images are encoded files"),
        ({"image": "back", "label": "front"}, "labels are integers"),
    ]:
        with pytest.raises(InputError, match=said) as caught:
            opened(file, **args)
        assert "\n" not in str(caught.value)


def test_the_names_of_the_classes_are_those_of_hugging_face(tmp_path: Path) -> None:
    about = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table(as_hugging_face(0, 2)).replace_schema_metadata(
        {"huggingface": json.dumps(about)}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert opened(tmp_path / "a.parquet").classes == ("cat", "dog")


def test_labels_that_are_kept_secret_are_none(tmp_path: Path) -> None:
    rows = as_hugging_face(0, 3) | {"label": [-1, -1, -1]}
    target = opened(write_rows(tmp_path / "a.parquet", rows))
    assert target.labelled is False
    assert isinstance(target.dataset[0], torch.Tensor)


def test_a_row_that_is_amiss_is_named_by_file_and_row(tmp_path: Path, way: str) -> None:
    images = as_hugging_face(0, 7)["image"]
    images[1] = None
    images[2] = {"bytes": None, "path": "/etc/hostname"}
    images[3] = {"bytes": b"no image", "path": None}
    rows = {"image": images, "label": [0, 0, 0, 0, None, -3, 6]}
    file = write_rows(tmp_path / "a.parquet", rows)
    (loaded,) = DataLoader(opened(file).dataset, batch_size=7, collate_fn=SkipBad())
    assert loaded.kept == (0, 6)
    assert [bad.source for bad in loaded.bad] == [f"{file} row {i}" for i in range(1, 6)]
    for bad, said in zip(
        loaded.bad, ["null", "a path only", "cannot identify", "null", "-3"], strict=True
    ):
        assert said in bad.error


def test_a_damaged_row_group_is_told_of_its_rows_alone(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.parquet", as_hugging_face(0, 8))
    data = bytearray(file.read_bytes())
    chunk = parquet.ParquetFile(file).metadata.row_group(1).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(data)
    (loaded,) = DataLoader(opened(file).dataset, batch_size=8, collate_fn=SkipBad())
    assert loaded.kept == (0, 1, 2, 3)
    assert loaded.bad[0].source == f"{file} row 4"


def test_what_is_no_parquet_or_empty_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = write_rows(tmp_path / "whole.parquet", as_hugging_face(0, 3)).read_bytes()
    (tmp_path / "text.parquet").write_text("<html>")
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    empty = pa.table(as_hugging_face(0, 1)).slice(0, 0)
    parquet.write_table(empty, tmp_path / "empty.parquet")
    write_rows(tmp_path / "unlabelled.parquet", {"image": as_hugging_face(0, 3)["image"]})
    for pattern, said in [
        ("text.parquet", "cannot be read as Parquet"),
        ("cut.parquet", "cannot be read as Parquet"),
        ("empty.parquet", "not one row in 1 Parquet file"),
        ("no-*.parquet", "no file matches"),
        ("{whole,unlabelled}.parquet", "unlabelled.parquet has no label column, which others have"),
    ]:
        with pytest.raises(InputError, match=re.escape(said)) as caught:
            opened(tmp_path / pattern)
        assert "\n" not in str(caught.value)


def test_the_form_of_the_data_changes_no_figure(tmp_path: Path) -> None:
    members = []
    for i in range(40):
        file = tmp_path / f"set/{i % 2}/{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(i))
        members.append(file)
    members.sort()
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for file in members:
            archive.add(file, file.name)
            label = tmp_path / f"{file.stem}.cls"
            label.write_text(file.parent.name)
            archive.add(label, label.name)
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in members],
        "label": [int(file.parent.name) for file in members],
    }
    write_rows(tmp_path / "a.parquet", rows, rows=7)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(96, 2))
    audits = []
    for spec in [
        f"imagefolder:{tmp_path}/set",
        f"tar:{tmp_path}/s.tar",
        f"parquet:{tmp_path}/a.parquet",
    ]:
        data = open_data(spec, {}, None).dataset
        audits.append(bnaudit.measure(model, data, batch_size=8, attribute="none"))
    assert audits[0].data.fingerprint == audits[1].data.fingerprint == audits[2].data.fingerprint
    assert audits[0].layers == audits[1].layers == audits[2].layers
    assert audits[0].network == audits[1].network == audits[2].network
