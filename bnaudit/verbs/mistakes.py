"""The mistakes of preprocessing that are tried: how a tensor was made, and how it should have been.

A mistake is a pair of encodings and a fault of the pixels themselves. What would make no images of
the data at hand is left out before any model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bnaudit.stats.pixels import (
    IMAGENET,
    MNIST,
    Change,
    Constants,
    Encoding,
    Spread,
    as_they_are,
    channels_reversed,
    inverted,
    roughness,
    rows_and_columns_swapped,
    spread,
    transposed_not_reshaped,
)

OVERSHOOT = 0.05
"""Pixels may lie so far outside 0 to 1: resizing with a bicubic filter overshoots at edges."""

NARROWEST = 0.25
"""Pixels of a batch that span less are not taken for images: another encoding fits better."""

ALL_WHOLE = 0.99
"""A share of whole levels at which the pixels are those of 8-bit images. By chance a tenth is."""

SMOOTHER = 0.7
"""Undoing a wrong layout makes neighbours more alike: their difference falls to such a share."""

MOST_VALUES = 2**18
"""About so many values tell how the tensors were made."""


@dataclass(frozen=True)
class Form:
    """A way to make a tensor of pixels; `words` go behind "the pixels are" and "give pixels"."""

    words: str
    encoding: Encoding


@dataclass(frozen=True)
class Fault:
    """What may be wrong with the pixels themselves: a clause, what to do, and what undoes it."""

    mistake: str
    mend: str
    undo: Change


RIGHT = Fault("", "", as_they_are)
REVERSED = Fault(
    "the channels are in reverse order (BGR for RGB, or the other way round)",
    "reverse the order of the channels",
    channels_reversed,
)
RESHAPED = Fault(
    "the arrays (H, W, C) were reshaped to (C, H, W), not transposed",
    "transpose the arrays (H, W, C) to (C, H, W) instead of reshaping them",
    transposed_not_reshaped,
)
SWAPPED = Fault("rows and columns are swapped", "swap rows and columns", rows_and_columns_swapped)
INVERTED = Fault("dark and bright are swapped", "invert the pixels", inverted)


@dataclass(frozen=True)
class Mistake:
    """Tensors made as `made` says, where the model wants `wanted`, of pixels with a `fault`.

    `seen`: what the pixels look like if they were made so.
    """

    made: Form
    wanted: Form
    fault: Fault
    seen: Spread

    @property
    def mistake(self) -> str:
        """What is wrong, as a clause."""
        made = f"the pixels are {self.made.words}, where the model wants them {self.wanted.words}"
        said = (made if self._encoded_wrongly else "", self.fault.mistake)
        return ", and ".join(filter(None, said))

    @property
    def mend(self) -> str:
        """What to do about it, as a command."""
        said = (
            f"give pixels {self.wanted.words}" if self._encoded_wrongly else "",
            self.fault.mend,
        )
        return ", and ".join(filter(None, said))

    @property
    def without_fault(self) -> Mistake | None:
        """The same with the pixels themselves as they should be; None: there is no mistake then."""
        return replace(self, fault=RIGHT) if self._encoded_wrongly else None

    @property
    def _encoded_wrongly(self) -> bool:
        """Channels that were reversed after the normalisation have it in reverse order too."""
        made, wanted = self.made.encoding, self.wanted.encoding
        return made != wanted and not (self.fault is REVERSED and made == wanted.reversed())

    def undone(self, values: Tensor) -> Tensor:
        """The tensor (…, C, H, W) as it should have been, in its own dtype."""
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        pixels = self.fault.undo(self.made.encoding.decode(wide))
        return self.wanted.encoding.encode(pixels).to(values.dtype)


def mistakes_of(images: Sequence[Tensor]) -> tuple[Mistake, ...]:
    """Every mistake that may be in these tensors, each (N, C, H, W) with 1 or 3 channels.

    The encodings that make images of them count: pixels between 0 and 1 that span a good part of
    it. Where one of these makes nothing but whole levels of 8 bits, no other counts: none has them
    by chance.
    """
    wanted, mistaken = _forms(images[0].shape[1])
    values = _some_of(images)
    plausible = []
    for form in (*wanted, *mistaken):
        seen = spread(values, form.encoding)
        within = seen.low >= -OVERSHOOT and seen.high <= 1 + OVERSHOOT
        if within and seen.high - seen.low >= NARROWEST:
            plausible.append((form, seen))
    exact = [(form, seen) for form, seen in plausible if (seen.whole_levels or 0.0) >= ALL_WHOLE]
    found = []
    for form, seen in exact or plausible:
        found += [Mistake(form, to, fault, seen) for to, fault in _wanted(form, wanted)]
        if form in wanted:
            found += [Mistake(form, form, fault, seen) for fault in _of_pixels(images)]
    return tuple(found)


def _wanted(made: Form, wanted: Sequence[Form]) -> Iterator[tuple[Form, Fault]]:
    """Every other encoding, and every encoding with the channels in reverse order."""
    channels = len(made.encoding.scale)
    reverse = any(made.encoding == form.encoding.reversed() for form in wanted if form != made)
    for form in wanted:
        if form != made and not (reverse and made not in wanted):
            yield form, RIGHT
        if channels > 1:
            yield form, REVERSED


def _of_pixels(images: Sequence[Tensor]) -> Iterator[Fault]:
    """What else may be wrong with pixels whose encoding is right."""
    yield INVERTED
    if all(x.shape[-1] == x.shape[-2] for x in images):
        yield SWAPPED
    one = images[0].cpu()
    if one.shape[1] > 1 and roughness(RESHAPED.undo(one)) <= SMOOTHER * roughness(one):
        yield RESHAPED


def _some_of(images: Sequence[Tensor]) -> Tensor:
    """About `MOST_VALUES` values of all images, (1, C, 1, M), on the CPU."""
    step = -(-sum(x.numel() for x in images) // MOST_VALUES)
    # An odd stride meets all rows and columns in turn.
    some = [x.flatten(2)[..., :: step | 1].transpose(0, 1).flatten(1).cpu() for x in images]
    return torch.cat(some, 1)[None, :, None]


def _forms(channels: int) -> tuple[tuple[Form, ...], tuple[Form, ...]]:
    """(how models want their pixels, how else they come by mistake)."""
    unit = Encoding.unit(channels)
    byte, dark = unit.times(255), unit.times(1 / 255)
    half = Constants("0.5 and 0.5", (0.5,) * channels, (0.5,) * channels)
    usual = IMAGENET if channels == 3 else MNIST
    wanted = [
        Form("from 0 to 1 and not normalised", unit),
        Form("from 0 to 255", byte),
        Form("from −1 to 1", unit.normalised(half)),
        Form(f"scaled to 0 to 1 and normalised with {usual.name}", unit.normalised(usual)),
    ]
    if channels == 3:
        centred = byte.minus(tuple(255 * m for m in usual.mean))
        wanted.append(Form("from 0 to 255 less ImageNet's mean", centred))
    mistaken = [Form("divided by 255 twice", dark)]
    for by in (half, usual):
        once = unit.normalised(by)
        mistaken += [
            Form(f"normalised twice with {by.name}", once.normalised(by)),
            Form(f"from 0 to 255, normalised with {by.name}", byte.normalised(by)),
            Form(f"divided by 255 twice, normalised with {by.name}", dark.normalised(by)),
        ]
        if once != once.reversed():
            mistaken.append(Form(f"normalised with {by.name} in reverse order", once.reversed()))
    return tuple(wanted), tuple(mistaken)
