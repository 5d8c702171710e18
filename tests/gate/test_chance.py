"""How often the gate fails a model that did not change, and misses one that did.

The slow tests print the table of `docs/gate.md`: pytest tests/gate/test_chance.py -m slow -s
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from digit_draws import (
    LAYERS,
    NETWORK,
    between,
    broken,
    caught,
    gated,
    measured,
    noise,
    sample_model,
    with_variance,
    worse_by,
)

from bnaudit.config import GateSettings, Tolerance
from bnaudit.results import Audit

DEFAULT = GateSettings()
NOISE_ALONE = GateSettings(
    tolerance=Tolerance(layer_esm=0, total_esm=0, disagreement=0, accuracy=0, relative=0)
)
BASELINES = range(5)


@cache
def drawn(name: str, samples: int, seed: int) -> Audit:
    return measured(sample_model(name), samples, seed)


def shares(name: str, samples: int, seeds: range, settings: GateSettings) -> tuple[float, float]:
    """Of gates on an unchanged model, each seed against each baseline: those that fail, and those
    that are inconclusive."""
    outcomes = [
        gated(drawn(name, samples, b), drawn(name, samples, s), settings).outcome
        for b in BASELINES
        for s in seeds
    ]
    failed, open_ = (float(np.mean([x == y for x in outcomes])) for y in ("fail", "inconclusive"))
    return failed, open_


def failures(name: str, samples: int, seeds: range, settings: GateSettings) -> float:
    return shares(name, samples, seeds, settings)[0]


@pytest.mark.parametrize("name", [pytest.param("healthy", marks=pytest.mark.slow), "small_batch"])
def test_an_unchanged_model_does_not_fail(name: str) -> None:
    for settings in (DEFAULT, NOISE_ALONE):
        assert failures(name, 200, range(5, 10), settings) == 0


@pytest.mark.parametrize("name", ["healthy", "small_batch"])
def test_the_same_samples_have_no_noise_between_them(name: str) -> None:
    audit = drawn(name, 200, 0)
    again = measured(sample_model(name), 200, 0)
    assert between(audit, again).paired
    assert gated(audit, again, NOISE_ALONE).outcome != "fail"


@pytest.mark.parametrize("figure", ["blocks.1.bn1", *NETWORK])
def test_a_large_regression_is_caught(figure: str) -> None:
    before, model = drawn("healthy", 200, 0), broken(figure, 0.9)
    for seed in (0, 1):
        assert caught(gated(before, measured(model, 200, seed), DEFAULT), figure)


@pytest.mark.parametrize("factor", [pytest.param(1.5, marks=pytest.mark.slow), 1 / 1.5])
def test_a_variance_that_is_wrong_is_caught_and_its_layer_named(factor: float) -> None:
    before = drawn("healthy", 200, 0)
    for layer in ("bn", "blocks.1.bn2"):
        after = with_variance(sample_model("healthy"), layer, factor)
        for seed in (0, 1):
            assert caught(gated(before, measured(after, 200, seed), DEFAULT), layer)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [160, 300, 1000])
@pytest.mark.parametrize("name", ["healthy", "small_batch", "lagging_ema"])
def test_at_most_one_in_a_hundred_gates_fails_an_unchanged_model(name: str, samples: int) -> None:
    seeds = range(5, 205)
    tolerant, unsure = shares(name, samples, seeds, DEFAULT)
    strict = failures(name, samples, seeds, NOISE_ALONE)
    print(f"\n| `{name}`, {samples} samples | {tolerant:.1%} | {unsure:.1%} | {strict:.1%} |")
    drawn.cache_clear()
    assert tolerant <= 0.01
    assert strict <= 0.01
    if samples >= 1000:
        assert tolerant + unsure <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("figure", [*LAYERS, *NETWORK])
def test_twice_the_tolerance_and_the_noise_is_caught(figure: str) -> None:
    samples, seeds = 300, range(5, 55)
    pairs = [
        (drawn("healthy", samples, b), drawn("healthy", samples, s))
        for b in BASELINES
        for s in seeds
    ]
    typical = float(np.median([noise(between(*pair), figure) for pair in pairs]))
    tolerance = DEFAULT.tolerance
    tolerated = getattr(tolerance, figure if figure in NETWORK else "layer_esm")
    found = []
    for amount in (2 * tolerated + typical, 2 * (tolerated + typical)):
        model = worse_by(figure, amount)
        paired, apart = [], []
        for seed in seeds:
            after = measured(model, samples, seed)
            paired.append(caught(gated(drawn("healthy", samples, seed), after, DEFAULT), figure))
            for b in BASELINES:
                apart.append(caught(gated(drawn("healthy", samples, b), after, DEFAULT), figure))
        found += [float(np.mean(apart)), float(np.mean(paired))]
    figures = " | ".join(f"{share:.0%}" for share in found)
    print(f"\n| `{figure}` | {tolerated:g} | {typical:.3f} | {figures} |")
    assert min(found[2:]) >= 0.95
    if figure not in ("accuracy", "disagreement"):  # which are too noisy for it at 300 samples
        assert min(found[:2]) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_a_variance_wrong_by_half_is_caught_in_every_layer(layer: str) -> None:
    seeds, found = range(5, 45), []
    for samples in (300, 500):
        for factor in (1.5, 1 / 1.5):
            model, paired, apart = with_variance(sample_model("healthy"), layer, factor), [], []
            for seed in seeds:
                after = measured(model, samples, seed)
                same = drawn("healthy", samples, seed)
                paired.append(caught(gated(same, after, DEFAULT), layer))
                for b in BASELINES:
                    apart.append(caught(gated(drawn("healthy", samples, b), after, DEFAULT), layer))
            found += [float(np.mean(apart)), float(np.mean(paired))]
    print(f"\n| `{layer}` | " + " | ".join(f"{share:.0%}" for share in found) + " |")
    assert min(found[4:]) >= 0.99
    assert min(found[1:4:2]) >= 0.99
