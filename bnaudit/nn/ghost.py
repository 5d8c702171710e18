"""Ghost Batch Normalization: the noise of small batches in training, at any batch size.

Hoffer 2017 (Hoffer, Hubara, Soudry, "Train longer, generalize better", NeurIPS 2017,
arXiv:1705.08741, algorithm 1); Summers 2020 validates it as a regulariser at small and medium batch
sizes too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnaudit.nn.grouped import batch_norm_by_groups, counted_batch
from bnaudit.nn.parts import NormThenParts


class GhostBatchNorm(NormThenParts, _BatchNorm):
    """Normalises by ghost batches of `ghost_size` examples while it trains.

    For ghost batch l of the batch, its examples neighbours in the batch, with the mean m_l and the
    biased variance v_l of a channel over examples and positions:

        y = γ·(x − m_l)/√(v_l + ε) + β

    Shapes and other arguments as in `torch.nn.BatchNorm`; the state dict is BatchNorm's.

    - Where `ghost_size` does not divide the batch, the last ghost batch takes what is left over (up
      to 2·`ghost_size` − 1 examples); a batch smaller than `ghost_size` is one ghost batch. So none
      is smaller than `ghost_size`, and none of a large batch is a single example.
    - The running statistics are those that BatchNorm would keep of the same batches (mean and
      unbiased variance of the *whole* batch, one step of `momentum` a batch), as in the code of
      Summers 2020. Hoffer 2017 takes one EMA step for every ghost batch, of moments inside it,
      whose variance leaves out how much ghost batches differ.
    - In `eval()` it is plain BatchNorm. With `track_running_stats=False` it has nothing else to
      normalise by than ghost batches, in `eval()` too.

    Raises `ValueError` for a `ghost_size` below 1, and where a ghost batch has one value a channel.
    """

    def __init__(
        self,
        num_features: int,
        ghost_size: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(ghost_size, int) or ghost_size < 1:
            raise ValueError(f"ghost_size has to be a whole number from 1 on, got {ghost_size!r}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.ghost_size = ghost_size

    def normalised(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's own name
        """By ghost batches, or in `eval()` by the running statistics."""
        if not self.training and self.running_mean is not None:
            return _BatchNorm.forward(self, input)
        self._check_input_dim(input)
        tracked = self.training and self.track_running_stats
        return batch_norm_by_groups(
            input,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            groups=self.num_features,
            examples=self.ghost_size,
            momentum=counted_batch(self) if tracked else 0.0,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        """As BatchNorm's, with the size of a ghost batch."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


class GhostBatchNorm1d(GhostBatchNorm, nn.BatchNorm1d):
    """`GhostBatchNorm` over (N, C) or (N, C, L)."""


class GhostBatchNorm2d(GhostBatchNorm, nn.BatchNorm2d):
    """`GhostBatchNorm` over (N, C, H, W)."""


class GhostBatchNorm3d(GhostBatchNorm, nn.BatchNorm3d):
    """`GhostBatchNorm` over (N, C, D, H, W)."""
