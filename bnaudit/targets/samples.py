"""Samples on their way to a batch: the unreadable ones are set aside and named, not fatal.

Everything here is picklable, and nothing raises inside a DataLoader worker: PyTorch hands such an
exception on as a page of traceback. What failed travels as data instead.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset, default_collate
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.datasets import DatasetFolder

from bnaudit.targets.encoded import EncodedImages
from bnaudit.targets.messages import one_line, told
from bnaudit.targets.user_files import no_bytecode


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be read: its file, or `sample 17`, and the exception in one line."""

    source: str
    error: str


@dataclass(frozen=True)
class Loaded:
    """What one list of samples came to.

    - `batch`: what the collate function made of the good samples, in their order; None where there
      is none, or where it failed.
    - `bad`: the samples that could not be read.
    - `kept`: the positions of the good samples in the list, from 0.
    - `error`: why the good samples could not be put into a batch, in one line that is meant for the
      user (raise it as InputError); None where they could.
    """

    batch: Any | None
    bad: tuple[BadSample, ...]
    kept: tuple[int, ...]
    error: str | None = None

    def pin_memory(self) -> Loaded:
        """What a DataLoader with `pin_memory=True` asks of a batch whose type it does not know."""
        return replace(self, batch=pin_memory(self.batch))


class Readable(Dataset[Any]):
    """A map-style dataset whose unreadable samples come as `BadSample` instead of raising.

    Any exception of the dataset's `__getitem__` counts, its transform's included; running out of
    memory and an index out of range do not.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> Any:
        # Python ends a loop over an object that has no __iter__ at the first IndexError.
        samples = len(self)
        if not -samples <= index < samples:
            raise IndexError(f"sample {index} of {samples}")
        try:
            with no_bytecode():
                return self.dataset[index]
        except MemoryError:
            raise
        except Exception as error:
            return BadSample(source_of(self.dataset, index), one_line(error))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (_NoBytecodeFromHere(), self.dataset)


class SkipBad:
    """A collate function that leaves out `BadSample`s: a list of samples -> `Loaded`.

    `collate` puts the good ones together; None is PyTorch's `default_collate`.
    """

    def __init__(self, collate: Callable[[list[Any]], Any] | None = None) -> None:
        self.collate = collate or default_collate

    def __call__(self, samples: Sequence[Any]) -> Loaded:
        """The samples of one batch, any of which may be a `BadSample`."""
        bad = tuple(sample for sample in samples if isinstance(sample, BadSample))
        kept = tuple(i for i, sample in enumerate(samples) if not isinstance(sample, BadSample))
        good = [samples[i] for i in kept]
        if not good:
            return Loaded(None, bad, kept)
        try:
            with no_bytecode():
                batch = self.collate(good)
        except MemoryError:
            raise
        except Exception as error:
            return Loaded(None, bad, kept, error=self._explain(error, good))
        return Loaded(batch, bad, kept)

    def _explain(self, error: Exception, samples: list[Any]) -> str:
        if self.collate is not default_collate:
            return f"the DataLoader's collate_fn raised {told(error)}"
        images = [_image_of(sample) for sample in samples]
        if any(isinstance(image, Image.Image) for image in images):
            return (
                "the samples are Pillow images, not tensors: the dataset, or --transform, has to "
                "turn them into tensors"
            )
        shapes = list(dict.fromkeys(_shape(image) for image in images))
        if len(shapes) > 1:
            return (
                f"images have different sizes ({', '.join(shapes[:3])}): give --transform, so that "
                "they come out alike, or --batch-size 1"
            )
        return f"the samples cannot be put into a batch: {one_line(error)}"


def source_of(dataset: Any, index: int) -> str:
    """Where a sample comes from: its file where the dataset knows one, else `sample 17`."""
    if isinstance(dataset, EncodedImages):
        return dataset.source_of(index)
    if isinstance(dataset, Readable):
        return source_of(dataset.dataset, index)
    if isinstance(dataset, Subset):
        return source_of(dataset.dataset, dataset.indices[index])
    if isinstance(dataset, DatasetFolder):
        return str(dataset.samples[index][0])
    files = getattr(dataset, "files", None)
    if isinstance(files, Sequence) and len(files) == len(dataset):
        file = files[index]
        if isinstance(file, str | Path):
            return str(file)
    return f"sample {index}"


def _image_of(sample: Any) -> Any:
    """The first tensor, array or image of a sample, where there is one."""
    if isinstance(sample, Tensor | np.ndarray | Image.Image):
        return sample
    if isinstance(sample, str | bytes):
        return None
    if isinstance(sample, Mapping):
        sample = list(sample.values())
    if isinstance(sample, Sequence):
        return next((image for item in sample if (image := _image_of(item)) is not None), None)
    return None


def _shape(image: Any) -> str:
    return "×".join(str(size) for size in getattr(image, "shape", ())) or type(image).__name__


class _NoBytecodeFromHere:
    """Unpickled before the dataset: a worker that imports its classes leaves no `__pycache__`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _write_no_bytecode, ()


def _write_no_bytecode() -> bool:
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    return before


def _restored(before: bool, dataset: Any) -> Readable:
    # A worker is ours, and goes on importing: the collate function, a transform's lazy imports.
    if multiprocessing.parent_process() is None:
        sys.dont_write_bytecode = before
    return Readable(dataset)
