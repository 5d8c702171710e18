"""What a user names with `--data` -> a dataset to draw from, or a stream of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from bnaudit.errors import InputError
from bnaudit.regular_files import with_home
from bnaudit.targets.cifar10 import CLASSES, SPLITS, open_cifar10
from bnaudit.targets.factories import call_factory, load_factory, needed_by, parameters_of
from bnaudit.targets.image_folder import open_image_folder
from bnaudit.targets.messages import did_you_mean, kind_of, listed
from bnaudit.targets.npz import open_npz
from bnaudit.targets.samples import BadSample, Loaded, Readable, SkipBad
from bnaudit.targets.shards_parquet import open_parquet
from bnaudit.targets.shards_tar import open_tar

__all__ = ["BadSample", "DataTarget", "Loaded", "SkipBad", "open_data"]

_OPTION = "--data"
_FORMS = (
    "imagefolder:DIR, tar:PATTERN, parquet:PATTERN, cifar10:DIR, npz:FILE, path/file.py:NAME or "
    "package.module:NAME"
)
_WANTED = "a Dataset, a DataLoader, or an iterable of batches"

Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class DataTarget:
    """Data as the engine reads them: exactly one of `dataset` and `stream` is given.

    - `dataset`: map-style, with a length; an unreadable sample comes as `BadSample`. A sample is an
      image or a pair (image, label), unless a factory gave it.
    - `stream`: batches, ready made, in an order that is not ours.
    - `collate`: puts samples of `dataset` together (give it to `SkipBad`); None is PyTorch's.
    - `batch_size`: what the user's DataLoader asks for; None where nothing does.
    - `labelled`: whether samples have labels; None where only their author knows.
    - `classes`: the labels' names, in the order of their numbers, where known.
    - `description`: the data in words, on one line, for people.
    - `workers`: how many processes the user's DataLoader loads with; None where nothing says so.
    - `finish`: what is to be done with each `Loaded` in the process that reads, before its batch is
      used; None for nothing.
    """

    dataset: Dataset[Any] | None
    stream: Iterable[Any] | None
    collate: Callable[..., Any] | None
    batch_size: int | None
    labelled: bool | None
    classes: tuple[str, ...] | None
    description: str
    workers: int | None = None
    finish: Callable[[Loaded], Loaded] | None = None


def open_data(spec: str, args: Mapping[str, object], transform: Transform | None) -> DataTarget:
    """The data that `--data spec` names; `args` are those of `--data-arg`.

    - `imagefolder:DIR`: a subfolder for each class, or images without labels.
    - `tar:PATTERN`: images and labels in tar files, as WebDataset lays them out; arguments `image`
      and `label` (see `open_tar`).
    - `parquet:PATTERN`: encoded images in Parquet files; arguments `image` and `label` (see
      `open_parquet`).
    - `cifar10:DIR`: the python or binary batches; argument `split`, test (default) or train.
    - `npz:FILE`: arrays x and y; argument `split`, a NAME to read x_NAME and y_NAME.
    - `path/file.py:NAME`, `package.module:NAME`: called with `args`, returns a Dataset, a
      DataLoader or an iterable of batches. It does its own preprocessing; one that has a parameter
      `transform` is given ours.

    Images go to `transform` as Pillow images, RGB where they have colours; without one they are
    float32 (C, H, W) in 0 to 1. InputError: anything that cannot be opened or is empty.
    """
    kind, _, place = spec.partition(":")
    openers = {"imagefolder": _image_folder, "cifar10": _cifar10, "npz": _npz}
    shards = {"tar": _tar, "parquet": _parquet}
    if kind in openers or kind in shards:
        if not place:
            raise InputError(f"{_OPTION} {spec}: say where the data are, as {kind}:PATH")
        if kind in shards:
            return shards[kind](spec, place, args, transform)
        return openers[kind](spec, with_home(place), args, transform)
    if ":" not in spec and not spec.endswith(".py"):
        raise InputError(f"{_OPTION} {spec}: {_guess(spec)}")
    return _from_factory(spec, args, transform)


def _guess(spec: str) -> str:
    path = with_home(spec)
    if path.is_dir():
        return f"a folder of images is written imagefolder:{spec}"
    if path.suffix == ".npz":
        return f"an archive of arrays is written npz:{spec}"
    if path.suffix in (".tar", ".parquet"):
        return f"such files are written {path.suffix.removeprefix('.')}:{spec}"
    return f"write it as {_FORMS}"


def _image_folder(
    spec: str, folder: Path, args: Mapping[str, object], transform: Transform | None
) -> DataTarget:
    _only(args, (), spec)
    images, classes, words = open_image_folder(folder, transform, said=f"{_OPTION} {spec}")
    return _of(images, classes is not None, classes, f"{spec}: {words}")


def _tar(
    spec: str, pattern: str, args: Mapping[str, object], transform: Transform | None
) -> DataTarget:
    _only(args, ("image", "label"), spec)
    images, words = open_tar(pattern, args, transform, said=f"{_OPTION} {spec}")
    return _of(images, images.labelled, None, f"{spec}: {words}")


def _parquet(
    spec: str, pattern: str, args: Mapping[str, object], transform: Transform | None
) -> DataTarget:
    _only(args, ("image", "label"), spec)
    images, classes, words = open_parquet(pattern, args, transform, said=f"{_OPTION} {spec}")
    return _of(images, images.labels is not None, classes, f"{spec}: {words}")


def _cifar10(
    spec: str, folder: Path, args: Mapping[str, object], transform: Transform | None
) -> DataTarget:
    _only(args, ("split",), spec)
    split = str(args.get("split", "test"))
    if split not in SPLITS:
        raise InputError(f"{_OPTION}-arg split={split}: {spec} has {' and '.join(SPLITS)}")
    if not folder.is_dir():
        raise InputError(f"{_OPTION} {spec}: there is no folder {folder}")
    images, words = open_cifar10(folder, split, transform, said=f"{_OPTION} {spec}")
    return _of(images, True, CLASSES, f"{spec}: {words}")


def _npz(
    spec: str, file: Path, args: Mapping[str, object], transform: Transform | None
) -> DataTarget:
    _only(args, ("split",), spec)
    split = args.get("split")
    if not file.is_file():
        others = [other.name for other in file.parent.glob("*.npz")] if file.parent.is_dir() else []
        hint = did_you_mean(file.name, others)
        raise InputError(f"{_OPTION} {spec}: there is no file {file}{hint}")
    said = f"{_OPTION} {spec}"
    name = None if split is None else str(split)
    dataset, labelled, words = open_npz(file, name, transform, said=said)
    return _of(dataset, labelled, None, f"{spec}: {words}")


def _only(args: Mapping[str, object], accepted: tuple[str, ...], spec: str) -> None:
    for name in args:
        if name not in accepted:
            accepts = f"it accepts {listed(accepted)}"
            raise InputError(f"{_OPTION}-arg {name}: {spec} takes no such argument; {accepts}")


def _of(
    dataset: Dataset[Any], labelled: bool, classes: tuple[str, ...] | None, description: str
) -> DataTarget:
    return DataTarget(Readable(dataset), None, None, None, labelled, classes, description)


def _from_factory(spec: str, args: Mapping[str, object], transform: Transform | None) -> DataTarget:
    factory = load_factory(spec, option=_OPTION)
    if "transform" in (parameters_of(factory) or {}) and "transform" not in args:
        if transform is not None or "transform" in needed_by(factory):
            args = {**args, "transform": transform}
    elif transform is not None:
        raise InputError(
            f"--transform does not reach the data of {_OPTION} {spec}: apply it there, or give the "
            "factory a parameter `transform`"
        )
    made = call_factory(factory, args, option=_OPTION, spec=spec)
    said = f"{_OPTION} {spec}"
    if isinstance(made, DataLoader):
        return _from_loader(made, spec, said)
    if isinstance(made, IterableDataset):
        raise InputError(
            f"{said} returned an IterableDataset, which does not say how large a batch is: return "
            "DataLoader(dataset, batch_size=...)"
        )
    if _is_map_style(made):
        return _from_dataset(made, None, None, spec, said)
    return _from_iterable(made, spec, said)


def _from_loader(loader: DataLoader[Any], spec: str, said: str) -> DataTarget:
    """Its dataset, to be drawn from in an order of ours, where the loader means the whole of it."""
    chosen = chosen_samples(loader)
    if chosen is None:
        return _stream(loader, f"{spec}: batches as its DataLoader gives them")
    collate = None if loader.collate_fn is default_collate else loader.collate_fn
    size = getattr(loader.batch_sampler, "batch_size", None)
    drawn = _from_dataset(chosen, collate, size, spec, said)
    return replace(drawn, workers=loader.num_workers)


def chosen_samples(loader: DataLoader[Any]) -> Any | None:
    """The map-style dataset that a DataLoader goes through once; None where it is not so plain.

    A loader without batching, with a sampler of its own kind (weighted, grouped, repeating), or
    with an iteration of its own, is more than its dataset: its batches are taken as they come.
    """
    dataset = loader.dataset
    if type(loader).__iter__ is not DataLoader.__iter__:
        return None
    if isinstance(dataset, IterableDataset) or type(loader.batch_sampler) is not BatchSampler:
        return None
    sampler = loader.batch_sampler.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return Subset(dataset, list(sampler.indices))
    if isinstance(sampler, RandomSampler):  # it may draw some twice, or not all
        whole = not sampler.replacement and sampler.num_samples == len(cast(Sized, dataset))
        return dataset if whole else None
    return dataset if isinstance(sampler, SequentialSampler | DistributedSampler) else None


def _from_dataset(
    dataset: Any, collate: Callable[..., Any] | None, batch_size: int | None, spec: str, said: str
) -> DataTarget:
    if not hasattr(dataset, "__len__"):
        raise InputError(f"{said}: its {type(dataset).__name__} has no __len__")
    samples = len(cast(Sized, dataset))
    if samples == 0:
        raise InputError(f"{said}: its {type(dataset).__name__} has no samples")
    classes = _classes_of(dataset)
    words = f"{spec}: {type(_innermost(dataset)).__name__}, {samples} samples"
    return DataTarget(Readable(dataset), None, collate, batch_size, None, classes, words)


def _from_iterable(made: Any, spec: str, said: str) -> DataTarget:
    kind = kind_of(made)
    if isinstance(made, Mapping):
        raise InputError(f"{said} returned {kind} of {listed(map(str, made))}: return one")
    if isinstance(made, tuple | list) and any(
        isinstance(item, Dataset | DataLoader) for item in made
    ):
        raise InputError(f"{said} returned {kind} of {len(made)} datasets: return one of them")
    if isinstance(made, Tensor | np.ndarray):
        raise InputError(f"{said} returned {kind}: return torch.utils.data.TensorDataset(x)")
    if isinstance(made, str | bytes | type) or not isinstance(made, Iterable):
        hint = ": is its `return` missing?" if made is None else ""
        raise InputError(f"{said} returned {kind}{hint or f': it is to return {_WANTED}'}")
    if isinstance(made, Sized) and len(made) == 0:
        raise InputError(f"{said} returned {kind} without batches")
    once = ", which can be read once only" if isinstance(made, Iterator) else ""
    return _stream(made, f"{spec}: batches of {kind}{once}")


def _stream(batches: Iterable[Any], description: str) -> DataTarget:
    size = getattr(batches, "batch_size", None)
    size = size if isinstance(size, int) else None
    return DataTarget(None, batches, None, size, None, None, description)


def _is_map_style(made: Any) -> bool:
    if isinstance(made, Dataset):
        return True
    # Other libraries' datasets; a list is a list of batches, a tensor and a mapping are neither.
    indexed = hasattr(made, "__getitem__") and hasattr(made, "__len__")
    return indexed and not isinstance(made, Sequence | Mapping | Tensor | np.ndarray | type)


def _innermost(dataset: Any) -> Any:
    return _innermost(dataset.dataset) if isinstance(dataset, Subset) else dataset


def _classes_of(dataset: Any) -> tuple[str, ...] | None:
    classes = getattr(_innermost(dataset), "classes", None)
    if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
        return tuple(classes)
    return None
