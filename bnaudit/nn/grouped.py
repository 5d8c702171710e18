"""Batch normalisation over groups of examples and groups of channels: one function for all.

Batch Norm, Ghost Batch Norm, Group Norm and Instance Norm differ only in which values share a mean
and a variance (Summers 2020, section on Batch/Group Norm): groups of `examples` × groups of
channels × all positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase


def batch_norm_by_groups(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    groups: int,
    examples: int | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """PyTorch's `batch_norm` in training, by groups; x (N, C, …) → the same shape, dtype, layout.

    `groups` channel groups of C/groups neighbouring channels; groups of `examples` neighbouring
    examples, None for the whole batch. The last group takes the examples that are left over, so it
    has `examples` to 2·`examples` − 1; a batch of fewer is one group. `weight`, `bias`: (C,).

    `running_mean`, `running_var` (groups,) move by `momentum` towards the moments of the *whole*
    batch, the variance unbiased: what PyTorch's BatchNorm keeps of the same batch, whatever
    `examples` is. An empty batch gives an empty output and moves nothing.

    Raises `ValueError` where a group has a single value.
    """
    if x.numel() == 0:
        return functional.batch_norm(x, None, None, weight, bias, True, momentum, eps)
    parts = _example_groups(x.shape[0], examples)
    if parts[0].examples * (x.shape[1] // groups) * math.prod(x.shape[2:]) == 1:
        raise ValueError(
            "expected more than 1 value in a group to normalise by, got an input of shape "
            f"{tuple(x.shape)} in groups of {parts[0].examples} example and "
            f"{x.shape[1] // groups} channel"
        )
    layer = _Layer(groups, weight, bias, eps)
    if len(parts) == 1 and parts[0].count == 1:
        return layer.normalised(x, 1, (running_mean, running_var), momentum)
    y, moments = _by_example_groups(x, parts, layer, running_mean)
    if moments is not None and running_mean is not None and running_var is not None:
        running_mean.lerp_(moments[0], momentum)
        running_var.lerp_(moments[1], momentum)
    return y


def counted_batch(layer: _NormBase) -> float:
    """Count one training batch in `num_batches_tracked`; the weight of that batch in the EMA.

    That is the layer's momentum, or where it is None 1/n for the n-th batch, as in PyTorch.
    """
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if layer.momentum is None:
            return 1.0 / float(layer.num_batches_tracked)
    return layer.momentum if layer.momentum is not None else 0.0


def pooled_channels(mean: Tensor, var: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Statistics of channels, (C,), as those of `groups` groups of them: (mean, var), (groups,).

    By the law of total variance, every channel having as many values as any other.
    """
    means, variances = mean.unflatten(0, (groups, -1)), var.unflatten(0, (groups, -1))
    return means.mean(1), variances.mean(1) + means.var(1, correction=0)


@dataclass(frozen=True)
class _Part:
    """`count` example groups of the same size, one after another in the batch."""

    count: int
    examples: int


def _example_groups(batch: int, examples: int | None) -> tuple[_Part, ...]:
    """The smallest groups first; two parts where the last group takes what is left over."""
    if examples is None or batch < 2 * examples:
        return (_Part(1, batch),)
    count, left_over = divmod(batch, examples)
    if left_over == 0:
        return (_Part(count, examples),)
    return (_Part(count - 1, examples), _Part(1, examples + left_over))


@dataclass(frozen=True)
class _Layer:
    """What every group of a layer has in common."""

    groups: int
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def normalised(
        self, x: Tensor, count: int, running: tuple[Tensor | None, Tensor | None], momentum: float
    ) -> Tensor:
        """`x` as `count` groups of examples: each of them times each group of channels is a channel
        of its own for PyTorch's kernel. `running` (mean, var), (count·groups,), is updated.
        """
        scales = x.shape[1] == self.groups  # the kernel can: what it takes as channels are ours
        weight, bias = (self.weight, self.bias) if scales else (None, None)
        if scales and count == 1:
            return functional.batch_norm(x, *running, weight, bias, True, momentum, self.eps)
        y = functional.batch_norm(
            x.reshape(count, x.shape[0] // count, self.groups, -1).transpose(0, 1).flatten(1, 2),
            *running,
            None if weight is None else weight.repeat(count),
            None if bias is None else bias.repeat(count),
            True,
            momentum,
            self.eps,
        )
        y = y.unflatten(1, (count, self.groups)).transpose(0, 1).reshape(x.shape)
        y = y.contiguous(memory_format=_layout(x))
        return y if scales else _scaled(y, self.weight, self.bias)


def _by_example_groups(
    x: Tensor, parts: tuple[_Part, ...], layer: _Layer, tracked: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """(y, the whole batch's moments or None): one call a part, which also hands over the moments.

    `tracked`: the running mean, where there is one, for its dtype and device.
    """
    outputs, counts, means, variances = [], [], [], []
    per_example = math.prod(x.shape[1:]) // layer.groups
    for part, values in zip(parts, x.split([p.count * p.examples for p in parts]), strict=True):
        mean = var = None
        if tracked is not None:
            mean = tracked.new_zeros(part.count * layer.groups)
            var = tracked.new_ones(part.count * layer.groups)
            counts.append(tracked.new_full((part.count,), part.examples * per_example))
            means.append(mean)
            variances.append(var)
        outputs.append(layer.normalised(values, part.count, (mean, var), 1.0))
    y = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    if tracked is None:
        return y, None
    by_group = (
        torch.cat(figures).unflatten(0, (-1, layer.groups)) for figures in (means, variances)
    )
    return y, _pooled(torch.cat(counts), *by_group)


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """y·γ + β by channel, in y's dtype; computed in that of the parameters where it is wider."""
    shape = (1, -1) + (1,) * (y.dim() - 2)
    scaled = y if weight is None else y * weight.view(shape)
    return (scaled if bias is None else scaled + bias.view(shape)).to(y.dtype)


def _pooled(counts: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of groups of examples, (K, G), as those of the whole batch, (G,); var unbiased."""
    n = counts[:, None]
    total = n.sum()
    pooled = (n * mean).sum(0) / total
    m2 = ((n - 1) * var + n * (mean - pooled).square()).sum(0)
    return pooled, m2 / (total - 1)


def _layout(x: Tensor) -> torch.memory_format:
    for layout, dims in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if x.dim() == dims and x.is_contiguous(memory_format=layout) and not x.is_contiguous():
            return layout
    return torch.contiguous_format
