"""Several conditions in one pass on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_models import labelled, network

from bnaudit.engine.batches import Batch, default_forward
from bnaudit.engine.conditions import Conditions, Subject
from bnaudit.engine.layers import find_layers
from bnaudit.engine.variants import ESTIMATES, ghost_batches, variants_pass

pytestmark = pytest.mark.gpu


def test_samples_that_fill_no_mini_batch_have_no_figures_under_it(cuda: torch.device) -> None:
    """A last batch that is too small takes no part: its place stays empty."""
    model = network().to(cuda)
    subject = Subject(model, find_layers(model), Conditions(default_forward, cuda))
    batches = [
        Batch(i, data, torch.zeros(len(data[1]), dtype=torch.long))
        for i, data in enumerate(labelled(40, 32))
    ]
    with subject.conditions.entered(model):
        plain, ghost = variants_pass(subject, batches, [ESTIMATES, ghost_batches(subject, 16)])
    assert plain.took_part.all()
    assert ghost.took_part.tolist() == [True] * 32 + [False] * 8
    assert np.isnan(ghost.loss).tolist() == [False] * 32 + [True] * 8
