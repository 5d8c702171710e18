"""The claims are a package beside the sample models, as `python -m reproduce` finds it there."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "sample_models"))


@pytest.fixture(autouse=True)
def generator_as_before():
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)
