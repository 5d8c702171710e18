"""For all tests: one thread in every process."""

from __future__ import annotations

import os
import sys

# Before torch is loaded, and for child processes: tiny tensors gain nothing by threads, and those
# of two pytest workers only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)
