"""`--decode gpu`: JPEGs decoded, and images transformed, on the device that computes.

Processes that load data only read: files go to the process that computes as they are kept, and
become a batch there.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, cuda
from torchvision.transforms.functional import pil_to_tensor

from bnaudit.errors import InputError
from bnaudit.targets.arrays import Transform
from bnaudit.targets.data import DataTarget
from bnaudit.targets.encoded import EncodedImages, decoded
from bnaudit.targets.jpeg import is_plain_jpeg
from bnaudit.targets.messages import kind_of, one_line
from bnaudit.targets.samples import BadSample, Loaded, Readable, SkipBad
from bnaudit.targets.user_files import no_bytecode

TOLERANCE = 0.1
"""A transform may come out so differently of a tensor and of a Pillow image, as a share of the
output's deviation: Pillow rounds to whole numbers after each step, and samples otherwise."""


@dataclass(frozen=True)
class EncodedSample:
    """An image as it is kept: its file as uint8 (bytes,), where it is from, and its label."""

    file: Tensor
    source: str
    label: int | None


@dataclass(frozen=True)
class EncodedBatch:
    """The files of a batch, one after the other in one tensor: it crosses processes as one.

    `files` uint8 (bytes of all,); `sizes`, `sources` and `labels` of each.
    """

    files: Tensor
    sizes: tuple[int, ...]
    sources: tuple[str, ...]
    labels: tuple[int | None, ...]


class EncodedSamples(EncodedImages):
    """The same images, not decoded: what `DecodedOnDevice` finishes."""

    def __init__(self, images: EncodedImages) -> None:
        super().__init__(images.transform)
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def encoded(self, index: int) -> bytes:
        """As the images have it."""
        return self._images.encoded(index)

    def label(self, index: int) -> int | None:
        """As the images have it."""
        return self._images.label(index)

    def source_of(self, index: int) -> str:
        """As the images have it."""
        return self._images.source_of(index)

    def __getitem__(self, index: int) -> EncodedSample:
        label = self.label(index)
        file = torch.frombuffer(bytearray(self.encoded(index) or b"\0"), dtype=torch.uint8)
        return EncodedSample(file, self.source_of(index), label)


def encoded_batch(samples: Sequence[EncodedSample]) -> EncodedBatch:
    """The collate function of `EncodedSamples`."""
    return EncodedBatch(
        torch.cat([sample.file for sample in samples]),
        tuple(len(sample.file) for sample in samples),
        tuple(sample.source for sample in samples),
        tuple(sample.label for sample in samples),
    )


class DecodedOnDevice:
    """What finishes a batch of `EncodedSamples`: decoded, transformed and put together.

    JPEGs are decoded on `device`, a CUDA device by nvJPEG; other formats, and JPEGs of kinds on
    which decoders differ, by Pillow. The transform is given uint8 tensors (3, H, W) on the device.
    """

    def __init__(self, device: torch.device, transform: Transform, said: str) -> None:
        self._decode = jpeg_decoder(device, said)
        self._device = device
        self._transform = transform
        self._said = said
        self._checked = False

    def __call__(self, loaded: Loaded) -> Loaded:
        """The same with a batch of images, and with those that could not be decoded left out.

        InputError: the transform cannot take tensors, or does something else with them.
        """
        if loaded.batch is None:
            return loaded
        with no_bytecode():
            finished = SkipBad()(self._samples(loaded.batch))
        return replace(
            finished,
            bad=(*loaded.bad, *finished.bad),
            kept=tuple(loaded.kept[place] for place in finished.kept),
        )

    def _samples(self, batch: EncodedBatch) -> list[Any]:
        files = batch.files.split(list(batch.sizes))
        samples: list[Any] = []
        for file, image, source, label in zip(
            files, self._images(files, batch.sources), batch.sources, batch.labels, strict=True
        ):
            if isinstance(image, BadSample):
                samples.append(image)
                continue
            if not self._checked:
                self._check(file)
            value = self._transformed(image, source)
            alone = label is None or isinstance(value, BadSample)
            samples.append(value if alone else (value, label))
        return samples

    def _images(self, files: Sequence[Tensor], sources: Sequence[str]) -> list[Tensor | BadSample]:
        """uint8 (3, H, W) on the device, of each file that can be decoded."""
        plain = [place for place, file in enumerate(files) if is_plain_jpeg(_bytes(file))]
        on_device = dict(zip(plain, self._decoded([files[i] for i in plain]), strict=True))
        return [
            image if (image := on_device.get(place)) is not None else self._by_pillow(file, source)
            for place, (file, source) in enumerate(zip(files, sources, strict=True))
        ]

    def _decoded(self, files: list[Tensor]) -> Sequence[Tensor | None]:
        """Of each JPEG, None where the device's decoder cannot."""
        if not files:
            return []
        try:
            return self._decode(files)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return [None] if len(files) == 1 else [self._decoded([file])[0] for file in files]

    def _by_pillow(self, file: Tensor, source: str) -> Tensor | BadSample:
        try:
            image: Tensor = pil_to_tensor(decoded(_bytes(file))).to(self._device)
            return image
        except MemoryError:
            raise
        except Exception as error:
            return BadSample(source, one_line(error))

    def _transformed(self, image: Tensor, source: str) -> Any:
        try:
            return self._transform(image)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            return BadSample(source, one_line(error))

    def _check(self, file: Tensor) -> None:
        """That the transform does to a tensor what it does to a Pillow image."""
        try:
            image = decoded(_bytes(file))
            wanted = self._transform(image)
        except Exception:  # told with the sample
            return
        self._checked = True
        try:
            made = self._transform(pil_to_tensor(image).to(self._device))
        except Exception as error:
            raise InputError(
                f"{self._said}: the transform is given tensors, and takes Pillow images only "
                f"({one_line(error)}): use --decode cpu"
            ) from error
        difference = _difference(made, wanted)
        if difference is not None:
            raise InputError(
                f"{self._said}: the transform does not make the same of a tensor as of a Pillow "
                f"image ({difference}): use --decode cpu"
            )


def decoded_on_gpu(target: DataTarget, device: torch.device) -> DataTarget:
    """What `--decode gpu` makes of a target, in a run on `device`. InputError: as `decoded_on`."""
    if device.type != "cuda":
        raise InputError(
            f"--decode gpu needs a CUDA device, and the run is on {device}: use --decode cpu"
        )
    return decoded_on(target, device, "--decode gpu")


def decoded_on(target: DataTarget, device: torch.device, said: str) -> DataTarget:
    """The same data, decoded and transformed on `device`. `said`: what asks for it, for messages.

    InputError: data that are no encoded images, or a device that cannot decode.
    """
    dataset = target.dataset
    if not isinstance(dataset, Readable) or not isinstance(dataset.dataset, EncodedImages):
        raise InputError(
            f"{said} is for images that are kept encoded (imagefolder, tar, parquet): "
            f"{target.description} is not; use --decode cpu"
        )
    images = EncodedSamples(dataset.dataset)
    finish = DecodedOnDevice(device, images.transform, said)
    return replace(target, dataset=Readable(images), collate=encoded_batch, finish=finish)


def jpeg_decoder(device: torch.device, said: str) -> Callable[[list[Tensor]], list[Tensor]]:
    """torchvision's decoder of JPEGs: files as uint8 (bytes,) -> uint8 (3, H, W) on `device`.

    InputError, which begins with `said`: it cannot, which is tried on a small one.
    """
    instead = "use --decode cpu"
    if device.type == "cuda" and not cuda.is_available():
        raise InputError(f"{said}: there is no CUDA device here: {instead}")
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        decode = partial(decode_jpeg, mode=ImageReadMode.RGB, device=device)
        decode([_small_jpeg()])
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"{said}: torchvision cannot decode JPEGs on {device} ({one_line(error)}): {instead}"
        ) from error
    return decode


def _small_jpeg() -> Tensor:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _difference(made: Any, wanted: Any) -> str | None:
    """How what a transform made of a tensor differs from what it should be; None where not."""
    if not isinstance(made, Tensor) or not isinstance(wanted, Tensor):
        return f"{kind_of(made)} and {kind_of(wanted)}"
    if made.shape != wanted.shape or made.dtype != wanted.dtype:
        return " and ".join(f"{value.dtype} {tuple(value.shape)}" for value in (made, wanted))
    made, wanted = made.cpu().double(), wanted.cpu().double()
    error = float((made - wanted).square().mean().sqrt())
    share = error / max(float(wanted.std()), 1e-6)
    return f"they differ by {share:.2g} of their deviation" if not share <= TOLERANCE else None


def _bytes(file: Tensor) -> bytes:
    return file.numpy().tobytes()
