"""Each sample model tells the story that it was made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import binomtest
from workplace import SAMPLES, Run

from bnaudit.results import Audit, NetworkAudit

Measure = Callable[..., Audit]


@pytest.fixture
def measured(once: Run) -> Measure:
    def measure(name: str, *more: str) -> Audit:
        config = SAMPLES / "bnaudit.toml"
        ran = once("measure", SAMPLES / f"{name}.pt", "--config", config, "--json", *more)
        assert ran.code == 0, ran.err
        return Audit.from_json(ran.out)

    return measure


def level(audit: Audit) -> str:
    assert audit.verdict is not None
    return audit.verdict.level


def accuracies(audit: Audit) -> tuple[float, float]:
    """Top-1 with the estimates and with mini-batch statistics, on the same samples, in points."""
    network = audit.network
    assert isinstance(network, NetworkAudit)
    assert network.deployed_compared is not None
    assert network.batch_statistics is not None
    return 100 * network.deployed_compared.accuracy, 100 * network.batch_statistics.accuracy


def largest(audit: Audit, figure: str) -> float:
    return float(max(getattr(layer, figure) for layer in audit.audited))


def test_the_healthy_model_is_not_shifted_and_deploys_as_it_trains(measured: Measure) -> None:
    audit = measured("healthy")
    assert level(audit) in ("healthy", "undecided")
    deployed, mini_batches = accuracies(audit)
    assert deployed > 97
    assert deployed > mini_batches - 0.5


@pytest.mark.parametrize("name", ["small_batch", "lagging_ema", "averaged"])
def test_wrong_statistics_are_called_shifted(measured: Measure, name: str) -> None:
    assert level(measured(name)) == "shifted"


@pytest.mark.parametrize(
    "camera", ["brighter", pytest.param("low_contrast", marks=pytest.mark.slow)]
)
def test_a_healthy_model_is_shifted_on_pictures_of_another_camera(
    measured: Measure, camera: str
) -> None:
    audit = measured("healthy", "--transform", f"{SAMPLES}/digits.py:{camera}")
    assert level(audit) == "shifted"
    deployed, mini_batches = accuracies(audit)
    assert deployed < mini_batches


def test_the_lagging_average_costs_twenty_points(measured: Measure) -> None:
    deployed, mini_batches = accuracies(measured("lagging_ema"))
    assert deployed < mini_batches - 20


def test_averaged_weights_without_new_statistics_cost_five_points(measured: Measure) -> None:
    deployed, mini_batches = accuracies(measured("averaged"))
    assert deployed < mini_batches - 5


def test_mini_batches_of_two_are_noisy_and_worse_than_the_estimates(measured: Measure) -> None:
    audit = measured("small_batch", "--train-batch-size", "2")
    deployed, mini_batches = accuracies(audit)
    assert mini_batches < deployed
    assert largest(audit, "batch_noise") > 0.3
    assert largest(audit, "batch_noise") > 3 * largest(measured("small_batch"), "batch_noise") / 2


def test_the_lagging_model_has_the_weights_of_the_healthy_one(measured: Measure) -> None:
    healthy, lagging = accuracies(measured("healthy")), accuracies(measured("lagging_ema"))
    assert healthy[1] == lagging[1]
    assert healthy[0] != lagging[0]


Recalibrated = Callable[..., dict[str, Any]]


@pytest.fixture
def recalibrated(once: Run) -> Recalibrated:
    """Calibrated on one part of the digits, verified on the test images; nothing is written."""

    def recalibrate(name: str, split: str, camera: str = "transform") -> dict[str, Any]:
        ran = once(
            *("recalibrate", SAMPLES / f"{name}.pt", "--config", SAMPLES / "bnaudit.toml"),
            *("--data-arg", f"split={split}", "--transform", f"{SAMPLES}/digits.py:{camera}"),
            *("--verify", f"npz:{SAMPLES}/digits.npz", "--verify-arg", "split=test"),
            *("--dry-run", "--json"),
        )
        assert ran.code in (0, 1), ran.err
        document: dict[str, Any] = json.loads(ran.out)
        return document

    return recalibrate


def gain(document: dict[str, Any]) -> tuple[float, float]:
    """Top-1 on the test images before and after, 0 to 1."""
    accuracy = document["verification"]["accuracy"]
    return accuracy["before"], accuracy["after"]


@pytest.fixture
def healthy(recalibrated: Recalibrated) -> tuple[float, float]:
    """The 95% interval of the healthy model's accuracy."""
    document = recalibrated("healthy", "train")
    right = round(gain(document)[0] * document["verification"]["labelled"])
    interval = binomtest(right, document["verification"]["labelled"]).proportion_ci(method="wilson")
    return interval.low, interval.high


@pytest.mark.parametrize("name", ["lagging_ema", pytest.param("averaged", marks=pytest.mark.slow)])
def test_recalibration_gives_back_the_accuracy_of_the_healthy_model(
    recalibrated: Recalibrated, healthy: tuple[float, float], name: str
) -> None:
    document = recalibrated(name, "train")
    before, after = gain(document)
    assert before < healthy[0]
    assert healthy[0] <= after <= healthy[1]
    assert document["decision"]["level"] == "gain"


@pytest.mark.parametrize(
    "camera", ["brighter", pytest.param("low_contrast", marks=pytest.mark.slow)]
)
def test_unlabelled_pictures_of_the_new_camera_give_back_more_than_half(
    recalibrated: Recalibrated, camera: str
) -> None:
    whole = gain(recalibrated("healthy", "train"))[0]
    before, after = gain(recalibrated("healthy", "verify", camera))
    assert after - before > (whole - before) / 2


def test_the_healthy_model_has_nothing_to_gain_and_is_told_so(recalibrated: Recalibrated) -> None:
    decision = recalibrated("healthy", "train")["decision"]
    assert decision["level"] in ("no-loss", "undecided")
    assert "fitted these data already" in decision["sentence"]
