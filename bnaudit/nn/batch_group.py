"""Batch/Group Normalization: for batches too small for Batch Norm.

Summers 2020, section on Batch/Group Norm: at two or four images a batch, groups of a few channels
and a few examples together hold enough values for a steady mean and variance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from bnaudit.nn.grouped import batch_norm_by_groups, counted_batch
from bnaudit.nn.parts import NormThenParts


class BatchGroupNorm(NormThenParts, _NormBase):
    """Normalises groups of examples and groups of channels together.

    For example group k (`examples` neighbours in the batch; None: the whole batch) and channel
    group g (`num_features`/`groups` neighbouring channels), over all positions:

        y = γ_c·(x − m_kg)/√(v_kg + ε) + β_c

    γ, β: (C,). `running_mean`, `running_var`: (`groups`,), one pair for a group of channels.

    - `groups` = C, `examples` = None is `torch.nn.BatchNorm`, bit for bit, and its state dict is
      that one's. `groups` = C with `examples` is Ghost Batch Norm. `examples` = 1 is
      `torch.nn.GroupNorm` in training, and with `track_running_stats=False` in `eval()` too, where
      its state dict is GroupNorm's.
    - Running statistics: mean and unbiased variance of the whole batch by channel group, one step
      of `momentum` a batch. In `eval()` the layer normalises by them, as the paper's code does, by
      its moving averages pooled over the channel group; so an output never depends on its batch.
      With `track_running_stats=False` groups of examples are all there is, in `eval()` too.
    - Where `examples` does not divide the batch, the last group takes what is left over; a smaller
      batch is one group.

    It is no `torch.nn.BatchNorm` by class: `torch.optim.swa_utils.update_bn` and
    `convert_sync_batchnorm` pass over it; `bnaudit measure` and `recalibrate` know it.

    Raises `ValueError` where `groups` does not divide `num_features`, for `examples` below 1, and
    where a group has a single value.
    """

    def __init__(
        self,
        num_features: int,
        groups: int,
        examples: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if groups < 1 or num_features % groups:
            raise ValueError(f"groups has to divide num_features, {num_features}; got {groups}")
        if examples is not None and examples < 1:
            raise ValueError(f"examples has to be at least 1 or None, got {examples}")
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        self.groups, self.examples = groups, examples
        if track_running_stats:
            self.running_mean = torch.zeros(groups, device=device, dtype=dtype)
            self.running_var = torch.ones(groups, device=device, dtype=dtype)

    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        """By groups, or in `eval()` by the running statistics."""
        self._check_input_dim(input)
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"expected {self.num_features} channels, got an input of shape {tuple(input.shape)}"
            )
        mean, var = self.running_mean, self.running_var
        if not self.training and mean is not None and var is not None:
            per_group = self.num_features // self.groups
            mean, var = mean.repeat_interleave(per_group), var.repeat_interleave(per_group)
            return functional.batch_norm(
                input, mean, var, self.weight, self.bias, False, 0.0, self.eps
            )
        tracked = self.training and self.track_running_stats
        return batch_norm_by_groups(
            input,
            mean if tracked else None,
            var if tracked else None,
            self.weight,
            self.bias,
            groups=self.groups,
            examples=self.examples,
            momentum=counted_batch(self) if tracked else 0.0,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        """As BatchNorm's, with the groups."""
        return f"{super().extra_repr()}, groups={self.groups}, examples={self.examples}"


class BatchGroupNorm1d(BatchGroupNorm):
    """`BatchGroupNorm` over (N, C) or (N, C, L)."""

    _check_input_dim = nn.BatchNorm1d._check_input_dim


class BatchGroupNorm2d(BatchGroupNorm):
    """`BatchGroupNorm` over (N, C, H, W)."""

    _check_input_dim = nn.BatchNorm2d._check_input_dim


class BatchGroupNorm3d(BatchGroupNorm):
    """`BatchGroupNorm` over (N, C, D, H, W)."""

    _check_input_dim = nn.BatchNorm3d._check_input_dim
