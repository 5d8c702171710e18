"""The sample models' network, for the tests of XBN."""

import sys
from pathlib import Path

from torch import nn

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def digits_net() -> nn.Module:
    sys.path.insert(0, str(SAMPLES))
    try:
        import digits
    finally:
        sys.path.remove(str(SAMPLES))
    return digits.model()
