"""No two states, however odd, stop the comparison."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from bnaudit.checkpoints.contents import Contents
from bnaudit.checkpoints.file_tensor import FileTensor
from bnaudit.checkpoints.lineage import compare
from bnaudit.checkpoints.parents import Checkpoint
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.findings.conclude import conclude
from bnaudit.report.lineage import print_comparison
from bnaudit.results.comparison import comparison
from bnaudit.results.documents import finite

Arrays = dict[str, NDArray[np.generic]]

ODD = (np.nan, np.inf, -np.inf, 0.0, 1.0, -1.0, 1e38, 1e-45, 7e4)
TYPES = (np.float16, np.float64, np.int8)


def sound(channels: int, rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    for i in range(3):
        arrays[f"{i}.conv.weight"] = rng.normal(size=(channels, 4, 3, 3)).astype(np.float32)
        for name in ("weight", "bias", "running_mean"):
            arrays[f"{i}.bn.{name}"] = rng.normal(size=channels).astype(np.float32)
        arrays[f"{i}.bn.running_var"] = rng.exponential(size=channels).astype(np.float32)
        arrays[f"{i}.bn.num_batches_tracked"] = np.array(100)
    return arrays


def damaged(arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Up to five tensors removed, renamed, cut, cast, scaled, or with odd values in them."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    for _ in range(rng.integers(6)):
        name = str(rng.choice([*arrays]))
        array = arrays.pop(name)
        floats = array.dtype.kind == "f"
        case = rng.integers(8)
        if case == 0:
            arrays[f"x.{name}"] = array
        elif case == 1 and array.ndim:
            arrays[name] = array[..., : max(1, array.shape[-1] - 1)]
        elif case == 2:
            arrays[name] = array.astype(TYPES[rng.integers(len(TYPES))])
        elif case == 3:
            arrays[name] = array * np.float32(rng.choice([0.9, 0.5, -1, 1e30]))
        elif case == 4 and floats:
            arrays[name] = np.full_like(array, rng.choice(ODD))
        elif case == 5 and floats and array.ndim:
            array.reshape(-1)[rng.integers(array.size)] = rng.choice(ODD)
            arrays[name] = array
        elif case == 6:
            arrays[name] = np.zeros_like(array)
    return arrays


def checkpoint(arrays: Arrays, name: str) -> Checkpoint:
    tensors = {key: FileTensor.of(array) for key, array in arrays.items()}
    contents = Contents(Path(name), "zip", 10**6, tensors)
    return Checkpoint(contents, state_of_contents(contents))


@pytest.mark.parametrize("seed", range(60))
def test_odd_states_are_compared_without_a_warning(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = sound(int(rng.choice([1, 2, 4, 8])), rng)
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        states = [damaged(whole, rng) for _ in range(rng.integers(2, 5))]
    checkpoints = [checkpoint(state, f"{i}.pt") for i, state in enumerate(states)]
    with warnings.catch_warnings(action="error"):
        lineage = compare(checkpoints[0], checkpoints[1:])
        findings = conclude([lineage])
        shown = comparison(lineage)
        print_comparison(shown, findings, Console(file=io.StringIO(), width=80))
    evidence = [finding.evidence for finding in findings]
    assert json.dumps(finite(evidence), allow_nan=False)
    assert all(finding.sentence.endswith(".") for finding in findings)
    named = {layer for finding in findings for layer in finding.layers}
    known = {layer.name for state in (lineage.child, lineage.parent) for layer in state.layers}
    assert named <= known
