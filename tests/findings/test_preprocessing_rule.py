"""BN301, on the sample models with real digits that are preprocessed rightly and wrongly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch
from audits import digits, digits_net
from torch import Tensor
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.findings.catalogue import find_rule
from bnaudit.findings.conclude import conclude
from bnaudit.findings.policy import Policy
from bnaudit.findings.rules.preprocessing import explained
from bnaudit.results import Audit, Finding

MODELS = ("healthy", "lagging_ema", "averaged", "small_batch")


def audited(model: str, x: Tensor) -> Audit:
    return bnaudit.measure(digits_net(model), TensorDataset(x), attribute="none")


def found(audit: Audit, policy: Policy | None = None) -> list[Finding]:
    return list(conclude([audit], policy or Policy(select=("BN301",))))


@cache
def levels_for_unit() -> Audit:
    """Digits from 0 to 255, for a network that wants them from 0 to 1."""
    return audited("healthy", 255 * digits("test")[0])


def test_the_finding_names_the_mistake_with_its_figures() -> None:
    (finding,) = found(levels_for_unit())
    assert (finding.code, finding.name, finding.severity) == (
        "BN301",
        "wrong-preprocessing",
        "error",
    )
    assert "the pixels are from 0 to 255" in finding.sentence
    assert "wants them from 0 to 1 and not normalised" in finding.sentence
    assert "95% confidence" in finding.sentence
    assert finding.layers == ()  # the data as a whole
    assert finding.evidence["layers"] == ("bn", "blocks.0.bn1", "blocks.0.bn2")
    assert "do not recalibrate" in finding.remedy
    assert "give pixels from 0 to 1" in finding.remedy
    assert finding.command is None


def test_the_evidence_holds_every_mistake_that_was_tried() -> None:
    audit = levels_for_unit()
    (finding,) = found(audit)
    assert audit.preprocessing is not None
    tried = finding.evidence["candidates"]
    assert len(tried) == len(audit.preprocessing.candidates) > 1
    left = [candidate["shift"]["after"] for candidate in tried]
    assert left == sorted(left)
    assert finding.evidence["mistake"] == tried[0]["mistake"]
    json.dumps(asdict(finding), allow_nan=False)


def test_it_is_the_same_of_an_audit_that_was_saved() -> None:
    audit = levels_for_unit()
    again = Audit.from_json(audit.to_json())
    assert again.preprocessing == audit.preprocessing
    assert found(again) == found(audit)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda x: 2 * x - 1, "the pixels are from −1 to 1, where the model wants them from 0 to"),
        (lambda x: (x - 0.1307) / 0.3081, "normalised with MNIST's mean and deviation, where"),
        (lambda x: x / 255, "the pixels are divided by 255 twice"),
        (lambda x: x.transpose(2, 3), "rows and columns are swapped"),
        (lambda x: 1 - x, "dark and bright are swapped"),
    ],
    ids=["half", "mnist", "divided-twice", "transposed", "inverted"],
)
def test_grey_images_have_mistakes_of_their_own(
    wrong: Callable[[Tensor], Tensor], said: str
) -> None:
    (finding,) = found(audited("healthy", wrong(digits("test")[0])))
    assert said in finding.sentence


CAMERAS: dict[str, Callable[[Tensor], Tensor]] = {
    "own": lambda x: x,
    "brighter": lambda x: (x + 0.3).clamp(0, 1),
    "low-contrast": lambda x: 0.5 * x + 0.25,
    "hazy": lambda x: 0.5 * x + 0.4,
    "dark": lambda x: 0.3 * x,
}


OFTEN = {
    *(("healthy", camera) for camera in ("own", "brighter", "low-contrast")),
    *((model, "own") for model in ("lagging_ema", "averaged")),
}
"""The sound model with its own camera and two others, and models whose estimates are far off."""


@pytest.mark.parametrize(
    ("model", "camera"),
    [
        pytest.param(model, camera, marks=[pytest.mark.slow] * ((model, camera) not in OFTEN))
        for model in MODELS
        for camera in CAMERAS
    ],
)
def test_neither_wrong_estimates_nor_another_camera_are_taken_for_it(
    model: str, camera: str
) -> None:
    assert found(audited(model, CAMERAS[camera](digits("test")[0]))) == []


def test_the_right_data_have_the_shift_that_the_finding_promises() -> None:
    wrong, right = levels_for_unit().preprocessing, audited("healthy", digits("test")[0])
    assert wrong is not None
    assert right.preprocessing is not None
    assert right.preprocessing.candidates == ()
    left = wrong.candidates[0].by_layer
    assert left == pytest.approx(right.preprocessing.by_layer, abs=1e-4)


def test_thresholds_can_be_set() -> None:
    audit = audited("healthy", digits("test")[0].transpose(2, 3))
    (finding,) = found(audit)
    assert audit.preprocessing is not None
    assert audit.preprocessing.low is not None
    high = {"BN301": {"shift": audit.preprocessing.low + 0.01}}
    assert found(audit, Policy(select=("BN301",), thresholds=high)) == []
    most = 1 - finding.evidence["candidates"][0]["shift"]["after"] / audit.preprocessing.shift
    more = {"BN301": {"lowered": most + 0.01}}
    assert found(audit, Policy(select=("BN301",), thresholds=more)) == []


def test_a_mistake_that_is_not_borne_out_by_the_network_is_not_named() -> None:
    """Overexposed digits look inverted to the first layers; the class scores say otherwise."""
    audit = audited("healthy", (digits("test")[0] + 0.3).clamp(0, 1))
    assert audit.preprocessing is not None
    best = audit.preprocessing.candidates[0]
    assert best.mistake == "dark and bright are swapped"
    assert best.shift.after < 0.7 * best.shift.before
    assert best.p_value < 1e-6
    assert best.entropy is not None
    assert best.entropy.difference > 0


def test_mistakes_that_explain_the_data_as_well_are_named_too() -> None:
    """Of a network whose estimates are all wrong, only the scale of the data can be told."""
    net = digits_net("lagging_ema")
    audit = bnaudit.measure(net, TensorDataset(255 * digits("test")[0]), attribute="none")
    (finding,) = found(audit)
    assert finding.sentence.count("the pixels are from 0 to 255") > 1
    assert "As good an explanation" in finding.sentence


def test_an_interval_that_is_withheld_gives_no_finding() -> None:
    tried = levels_for_unit().preprocessing
    assert tried is not None
    assert explained(tried) is not None
    assert explained(replace(tried, low=None, high=None)) is None
    assert explained(replace(tried, candidates=())) is None


def test_every_threshold_has_a_reason_and_a_finite_default() -> None:
    rule = find_rule("wrong-preprocessing")
    assert rule.code == "BN301"
    assert {t.name for t in rule.thresholds} == {
        "shift",
        "left",
        "share",
        "range",
        "lowered",
        "most",
        "alone",
    }
    assert all(t.reason and math.isfinite(t.default) for t in rule.thresholds)


def test_features_are_not_tried() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8)).eval()
    audit = bnaudit.measure(net, TensorDataset(3 + torch.randn(200, 5)), attribute="none")
    assert audit.preprocessing is not None
    assert "no images" in (audit.preprocessing.note or "")
    assert found(audit) == []


def test_a_reset_first_layer_is_not_blamed_on_the_data() -> None:
    net = digits_net("healthy")
    net.bn.reset_running_stats()
    audit = bnaudit.measure(net, TensorDataset(*digits("test")), attribute="none")
    assert found(audit) == []
    assert {"BN004", "BN101"} <= {finding.code for finding in audit.findings}


def test_wrong_preprocessing_stands_for_what_follows_from_it() -> None:
    net, (x, y) = digits_net("healthy"), digits("test")
    audit = bnaudit.measure(net, TensorDataset(255 * x, y))
    assert audit.verdict is not None
    assert audit.verdict.level == "shifted"
    assert [finding.code for finding in audit.findings] == ["BN301"]
