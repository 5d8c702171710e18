"""No state, however broken, makes a rule about it fail, warn, or say what JSON cannot hold."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bnaudit.findings.catalogue import all_rules
from bnaudit.findings.conclude import conclude
from bnaudit.results.state import LayerState, State

ODD = (0.0, 1.0, -1.0, 0.9, 1e-12, 1e-45, 1e30, 3e38, -1e-30, math.inf, -math.inf, math.nan)


def arrays(channels: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.sampled_from(ODD), min_size=channels, max_size=channels).map(np.array)


@st.composite
def layers(draw: st.DrawFn, name: str) -> LayerState:
    channels = draw(st.integers(1, 3))
    return LayerState(
        name=name,
        running_mean=draw(arrays(channels)),
        running_var=draw(arrays(channels)),
        gamma=draw(st.none() | arrays(channels)),
        beta=draw(st.none() | arrays(channels)),
        num_batches_tracked=draw(st.none() | st.sampled_from((*ODD, 7.0, 14.0, -3.0))),
        dtype=draw(st.sampled_from(("float32", "float16", "bfloat16", "float64"))),
        eps=draw(st.sampled_from((0.0, 1e-12, 1e-5, 1e-3))),
        eps_known=draw(st.booleans()),
        momentum=draw(st.none() | st.sampled_from((0.0, 0.1, 1.0, 1.5, -0.1))),
        tracks=draw(st.none() | st.booleans()),
    )


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(0, 3), st.none() | st.integers(0, 10))
def test_any_state_is_judged(data: st.DataObject, count: int, steps: int | None) -> None:
    drawn = tuple(data.draw(layers(f"l{i}")) for i in range(count))
    state = State("x.pt", drawn, steps=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = conclude([state])
    names = {layer.name for layer in state.layers}
    for finding in found:
        json.dumps(finding.evidence, allow_nan=False)
        assert set(finding.layers) <= names
        assert "nan" not in finding.sentence.lower().replace("nan or infinite", "")


def test_every_rule_about_a_state_takes_an_empty_one() -> None:
    for rule in all_rules():
        if rule.subject is State:
            limits = {threshold.name: threshold.default for threshold in rule.thresholds}
            assert not list(rule.find(State("x.pt", ()), limits))
