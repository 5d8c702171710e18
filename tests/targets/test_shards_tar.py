from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from bnaudit.errors import InputError
from bnaudit.targets.data import DataTarget, SkipBad, open_data

Members = Iterable[tuple[str, bytes]]


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_tar(file: Path, members: Members) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def opened(pattern: object, **args: object) -> DataTarget:
    return open_data(f"tar:{pattern}", args, None)


def pixels(encoded: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(encoded)) as image:
        return pil_to_tensor(image.convert("RGB")).float() / 255


def numbered(start: int, stop: int) -> list[tuple[str, bytes]]:
    return [
        member
        for i in range(start, stop)
        for member in ((f"{i:04d}.png", picture(i)), (f"{i:04d}.cls", str(i % 7).encode()))
    ]


def test_shards_are_one_set_that_is_read_in_any_order(tmp_path: Path) -> None:
    write_tar(tmp_path / "s-08.tar", numbered(0, 5))
    write_tar(tmp_path / "s-09.tar", numbered(5, 6))
    write_tar(tmp_path / "s-10.tar", numbered(6, 10))
    target = opened(tmp_path / "s-{08..10}.tar")
    assert target.labelled
    assert len(target.dataset) == 10
    assert "10 images in 3 tar files" in target.description
    for index in [9, 0, 5, 4]:
        image, label = target.dataset[index]
        assert label == index % 7
        assert torch.equal(image, pixels(picture(index)))


def test_shards_hold_what_the_folder_of_their_files_holds(tmp_path: Path) -> None:
    members = []
    for i in range(6):
        file = tmp_path / f"set/class{i % 2}/{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(i, "JPEG"))
        members += [(f"{i}.jpg", file.read_bytes()), (f"{i}.cls", str(i % 2).encode())]
    shards = opened(write_tar(tmp_path / "s.tar", members)).dataset
    folder = ImageFolder(str(tmp_path / "set"), transform=lambda x: pil_to_tensor(x) / 255)
    in_shards = {shards.dataset.source_of(i).split(":")[1]: shards[i] for i in range(6)}
    for (path, _), (image, label) in zip(folder.samples, folder, strict=True):
        assert in_shards[Path(path).name][1] == label
        assert torch.equal(in_shards[Path(path).name][0], image)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_is_read_once_by_any_number_of_processes(tmp_path: Path, workers: int) -> None:
    write_tar(tmp_path / "s.tar", numbered(0, 23))
    dataset = opened(tmp_path / "s.tar").dataset
    dataset[3]  # the files are open before the processes are forked
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0)).tolist()
    loader = DataLoader(
        dataset, batch_size=4, sampler=order, num_workers=workers, collate_fn=SkipBad()
    )
    images = torch.cat([loaded.batch[0] for loaded in loader])
    assert torch.equal(images, torch.stack([pixels(picture(i)) for i in order]))
    again = pickle.loads(pickle.dumps(dataset))  # as a spawned process gets it
    assert torch.equal(again[3][0], dataset[3][0])


def test_more_shards_than_a_process_may_keep_open_are_read(tmp_path: Path) -> None:
    for i in range(40):
        write_tar(tmp_path / f"s-{i:02d}.tar", numbered(i, i + 1))
    dataset = opened(tmp_path / "s-*.tar").dataset
    for index in [*range(40), 0, 17]:
        assert torch.equal(dataset[index][0], pixels(picture(index)))


def test_labels_belong_to_their_keys_wherever_they_stand(tmp_path: Path) -> None:
    members = [(f"a/{i}.png", picture(i)) for i in range(4)]
    members += [(f"a/{i}.cls", str(i).encode()) for i in (2, 0, 3, 1)]
    dataset = opened(write_tar(tmp_path / "s.tar", members)).dataset
    assert [dataset[i][1] for i in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "args", "label"),
    [
        ("0.cls", b" 5\n", {}, 5),
        ("0.CLS", b"5", {}, 5),
        ("0.json", b'{"label": 5, "width": 8}', {}, 5),
        ("0.json", b'{"cls": "5"}', {}, 5),
        ("0.json", b'{"label": 1, "fine": 5}', {"label": "json:fine"}, 5),
        ("0.target.txt", b"5", {"label": "target.txt"}, 5),
        ("0.json", b'{"caption": "a dog"}', {}, None),
        ("0.txt", b"a dog", {}, None),
    ],
)
def test_labels_are_found_in_the_usual_members_or_those_named(
    tmp_path: Path, name: str, content: bytes, args: dict[str, object], label: int | None
) -> None:
    target = opened(write_tar(tmp_path / "s.tar", [("0.png", picture(0)), (name, content)]), **args)
    assert target.labelled == (label is not None)
    if label is None:
        assert isinstance(target.dataset[0], torch.Tensor)
        assert "without labels" in target.description
    else:
        assert target.dataset[0][1] == label


def test_one_of_several_images_of_a_sample_is_named(tmp_path: Path) -> None:
    members = [("0.left.png", picture(1)), ("0.right.png", picture(2)), ("0.cls", b"3")]
    file = write_tar(tmp_path / "s.tar", members)
    assert torch.equal(opened(file, image="right.png").dataset[0][0], pixels(picture(2)))
    with pytest.raises(InputError, match=r"1 \.left\.png, 1 \.right\.png.*image=EXTENSION"):
        opened(file)


def test_what_is_no_sample_is_left_out_and_counted(tmp_path: Path) -> None:
    members = [*numbered(0, 2), ("dataset_info.json", b"{}"), ("README", b""), ("._0000.png", b"x")]
    file = write_tar(tmp_path / "s.tar", members)
    with tarfile.open(file, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"link{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
    target = opened(file)
    assert len(target.dataset) == 2
    assert "7 other members left out" in target.description


def test_nothing_is_written_wherever_names_lead(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = [f"{tmp_path}/out.png", "../up.png", "a\nb.png", f"{'x' * 300}.png"]
    file = write_tar(tmp_path / "in/s.tar", [(name, picture(0)) for name in names])
    dataset = opened(file).dataset
    assert all(torch.equal(dataset[i], pixels(picture(0))) for i in range(4))
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "s.tar"]
    assert dataset.dataset.source_of(2) == f"{file}:'a\\nb.png'"


BAD = [
    ([("1.png", picture(1))], "1.png", "without a label"),
    ([("1.cls", b"1")], "1.cls", "label without an image"),
    ([("1.png", picture(1)), ("1.cls", b"cat")], "1.png", "'cat', not an integer"),
    ([("1.png", picture(1)), ("1.cls", b"-1")], "1.png", "labels count from 0"),
    ([("1.png", picture(1)), ("1.json", b"[1]")], "1.png", "json has no label or cls"),
    ([("1.png", picture(1)), ("1.json", b"{")], "1.png", "JSONDecodeError"),
    ([("1.png", b"no image"), ("1.cls", b"1")], "1.png", "cannot identify image file"),
    ([("1.png", picture(1)[:60]), ("1.cls", b"1")], "1.png", "truncated"),
]


def test_a_sample_that_is_amiss_is_named_by_shard_and_member(tmp_path: Path) -> None:
    for i, (members, member, error) in enumerate(BAD):
        file = write_tar(tmp_path / f"{i}.tar", [*numbered(0, 1), *members])
        dataset = opened(file).dataset
        (loaded,) = DataLoader(dataset, batch_size=2, collate_fn=SkipBad())
        assert loaded.kept == (0,), error
        assert loaded.bad[0].source == f"{file}:{member}"
        assert error in loaded.bad[0].error


def damaged(tmp_path: Path, how: Callable[[bytes], bytes]) -> str:
    file = write_tar(tmp_path / "s.tar", numbered(0, 3))
    file.write_bytes(how(file.read_bytes()))
    with pytest.raises(InputError) as caught:
        opened(file)
    return str(caught.value)


def test_a_tar_that_is_damaged_cut_or_none_is_refused_in_one_line(tmp_path: Path) -> None:
    image = len(picture(0))
    second = 512 + -(-image // 512) * 512
    for how, said in [
        (lambda data: data[: 512 + image // 2], "ends in the middle of 0000.png"),
        (lambda data: data[: second + 300], "damaged or truncated at byte|after 0000.png"),
        (lambda data: data[:second] + b"\xff" * 512 + data[second + 512 :], "at byte"),
        (lambda data: data[:second] + b"x" * 700, "at byte"),
        (lambda data: data[: second + 124] + b"\xff" * 12 + data[second + 136 :], "damaged|middle"),
        (lambda data: b"", "is not a tar file"),
        (lambda data: b"<html>" * 300, "is not a tar file"),
        (lambda data: gzip.compress(data), r"compressed \(gzip\).*gunzip -k"),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, r"compressed \(zstd\).*zstd -d"),
        (lambda data: bytes(10240), "no images in 1 tar file: it has no members"),
    ]:
        told = damaged(tmp_path, how)
        assert re.search(said, told), told
        assert "\n" not in told
        assert told.startswith(f"--data tar:{tmp_path}/s.tar")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("0.png", picture(0)), ("0.png", picture(1))], "two members 0.png"),
        ([("0.png", picture(0)), ("0.jpg", picture(1))], "image=jpg or --data-arg image=png"),
        ([("0.txt", b"")], "its members are 1 .txt; name the images with"),
    ],
)
def test_a_shard_that_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, members: Members, said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        opened(write_tar(tmp_path / "s.tar", members))


def test_a_label_that_nothing_has_is_refused(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "s.tar", numbered(0, 1))
    with pytest.raises(InputError, match=r"no image has a label \.target.*are cls"):
        opened(file, label="target")
    with pytest.raises(InputError, match="it accepts image, label"):
        opened(file, split="val")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{0..2}.tar", ["s-0.tar", "s-1.tar", "s-2.tar"]),
        ("s-{2..2}.tar", ["s-2.tar"]),
        ("{s,t}-1.tar", ["s-1.tar", "t-1.tar"]),
        ("t-?.tar::s-0.tar::t-1.tar", ["t-1.tar", "s-0.tar"]),
        ("odd{1}.tar", ["odd{1}.tar"]),
    ],
)
def test_patterns_name_files_in_their_order_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(["s-0.tar", "s-1.tar", "s-2.tar", "t-1.tar", "odd{1}.tar"]):
        write_tar(tmp_path / name, [(f"{i}.png", picture(i))])
    dataset = opened(pattern).dataset
    assert [dataset.dataset.source_of(i).split(":")[0] for i in range(len(dataset))] == names


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("s-{0..2}.tar", "2 of its 3 files are missing; the first is s-1.tar"),
        ("r-0.tar", "there is no file r-0.tar; did you mean s-0.tar?"),
        ("x-*.tar", "no file matches x-*.tar"),
        ("s-{2..0}.tar", "the range {2..0} runs backwards"),
        ("s-{0..999999999999}.tar", "has more than 100,000 numbers"),
        ("{0..9999}{0..9999}.tar", "name 100,000,000 files"),
        ("s-0.tar::", "a pattern is empty"),
        (".", "is a folder: name the files in it"),
    ],
)
def test_a_pattern_without_its_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "s-0.tar", numbered(0, 1))
    with pytest.raises(InputError, match=re.escape(said)):
        opened(pattern)


def test_a_tar_file_without_its_prefix_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"such files are written tar:.*s\.tar"):
        open_data(str(tmp_path / "s.tar"), {}, None)


def test_labels_in_json_are_no_code(tmp_path: Path) -> None:
    content = json.dumps({"label": [1]}).encode()
    file = write_tar(tmp_path / "s.tar", [("0.png", picture(0)), ("0.json", content)])
    assert "not an integer" in opened(file).dataset[0].error
