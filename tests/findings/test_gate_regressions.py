"""With a baseline only what got worse fails: beyond a tolerance, and beyond noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from audits import chain, digits, digits_net, gaussian
from judging import LAST, NO_BN2, Branches, X, audit_of, branches, check_of, failing, judged, waived
from torch import Tensor, nn

from bnaudit.errors import InputError
from bnaudit.findings.policy import Policy
from bnaudit.results import Audit

OTHER = gaussian(400, 32, seed=9)
"""Other samples of the same distribution."""

ONE = "left.4"


@pytest.fixture(scope="module")
def sound() -> Audit:
    return audit_of(branches(), X)


@pytest.fixture(scope="module")
def wrong() -> Audit:
    """One layer wrong: BN101."""
    return audit_of(branches({ONE: 1.5}), X)


@pytest.mark.parametrize("name", ["healthy", "averaged", "small_batch", "lagging_ema"])
def test_a_model_passes_against_its_own_baseline(name: str) -> None:
    audit = audit_of(digits_net(name), *digits("test"), policy=Policy())
    verdict = judged(audit, audit, policy=Policy())
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert {each.setting for each in verdict.waived} <= {"baseline"}
    assert verdict.changes is not None
    assert verdict.changes.paired
    assert not verdict.changes.gained


def test_what_was_wrong_already_does_not_fail(wrong: Audit) -> None:
    verdict = judged(wrong, wrong)
    assert verdict.outcome == "pass"
    assert waived(verdict) == {"BN101": "baseline"}


def test_a_layer_that_got_worse_fails_as_a_figure_and_as_a_finding(
    sound: Audit, wrong: Audit
) -> None:
    verdict = judged(wrong, sound)
    assert verdict.exit_code == 1
    found = failing(verdict)
    assert found["layer_esm"] == (ONE,)
    assert found["BN101"] == (ONE,)
    check = check_of(verdict, "layer_esm")
    assert check.kind == "regression"
    assert f"in {ONE}" in check.sentence
    assert check.remedy is not None
    assert "--write-baseline" in check.remedy
    assert check.limit == 0.05
    change = wrong.layer(ONE).output_shift
    assert change is not None
    assert check.value == pytest.approx(change.value)


def test_what_got_better_passes_and_is_shown_as_lost(sound: Audit, wrong: Audit) -> None:
    verdict = judged(sound, wrong)
    assert verdict.outcome == "pass"
    assert verdict.changes is not None
    assert [finding.code for finding in verdict.changes.lost] == ["BN101"]


def test_the_same_model_on_other_samples_passes(wrong: Audit) -> None:
    again = audit_of(branches({ONE: 1.5}), X, seed=3, samples=300)
    verdict = judged(again, wrong)
    assert verdict.changes is not None
    assert not verdict.changes.paired
    assert verdict.outcome == "pass"


def test_a_finding_on_a_new_layer_fails_for_that_layer_alone(wrong: Audit) -> None:
    both = audit_of(branches({ONE: 1.5, "right.4": 2.0}), X)
    assert failing(judged(both, wrong))["BN101"] == ("right.4",)
    assert failing(judged(both, wrong))["layer_esm"] == ("right.4",)


def test_crossing_a_threshold_without_getting_worse_beyond_tolerance_passes() -> None:
    before, after = (audit_of(branches({ONE: factor}), X) for factor in (1.3, 1.37))
    assert "BN101" not in [finding.code for finding in before.findings]
    assert "BN101" in [finding.code for finding in after.findings]
    assert judged(after).outcome == "fail"
    verdict = judged(after, before)
    assert verdict.outcome == "pass"
    assert waived(verdict)["BN101"] == "tolerance"
    tight = judged(after, before, tolerance={"layer_esm": 0.0, "relative": 0.0})
    assert failing(tight)["BN101"] == (ONE,)


def test_the_tolerance_is_the_larger_of_the_absolute_and_the_relative_one(
    sound: Audit, wrong: Audit
) -> None:
    """The figure went from 0 to 0.175 in one case, from 0.175 to about 0.35 in the other."""
    worse = audit_of(branches({ONE: 2.6}), X)
    assert failing(judged(worse, wrong))
    for given in ({"layer_esm": 5.0, "total_esm": 5.0}, {"relative": 5.0}):
        verdict = judged(worse, wrong, tolerance={"disagreement": 1.0, **given})
        assert verdict.outcome == "pass"
    assert failing(judged(wrong, sound, tolerance={"relative": 5.0}))["layer_esm"] == (ONE,)


def test_what_got_worse_within_noise_passes_or_is_inconclusive(sound: Audit) -> None:
    few = audit_of(branches(), OTHER[:10])
    verdict = judged(few, sound)
    assert not failing(verdict)
    assert verdict.outcome == "inconclusive"
    check = check_of(verdict, "layer_esm")
    assert "400 and 10 samples are too few" in check.sentence
    assert check.remedy is not None
    assert "--base-checkpoint" in check.remedy
    assert judged(few, sound, inconclusive="pass").exit_code == 0


def test_a_regression_of_accuracy_fails_beyond_its_noise() -> None:
    x, y = digits("test")
    healthy = audit_of(digits_net("healthy"), x, y)
    confused = y.clone()
    confused[::5] = (confused[::5] + 1) % 10  # the same samples, every fifth label wrong
    worse = audit_of(digits_net("healthy"), x, confused)
    verdict = judged(worse, healthy, select=["BN1"])
    check = check_of(verdict, "accuracy")
    assert check.outcome == "fail"
    assert "99.2% -> 79" in check.sentence
    assert check.limit == 0.01
    assert judged(worse, healthy, select=["BN1"], tolerance={"accuracy": 0.3}).outcome == "pass"
    assert check_of(judged(healthy, worse), "accuracy").outcome == "pass"


def test_more_disagreement_fails() -> None:
    data = digits("test")
    healthy, lagging = (audit_of(digits_net(name), *data) for name in ("healthy", "lagging_ema"))
    verdict = judged(lagging, healthy, fail_on="nothing")
    assert check_of(verdict, "disagreement").outcome == "fail"
    assert check_of(verdict, "total_esm").outcome == "fail"
    assert len(check_of(verdict, "layer_esm").layers) == 9


# What is found in the stored state counts without any figure.


def counted_differently(name: str = "right.1") -> nn.Module:
    """Nothing is wrong but a count of batches: BN009, and no figure changes."""
    model = branches()
    count = model.get_submodule(name).num_batches_tracked
    assert isinstance(count, Tensor)
    count.fill_(777)
    return model


def test_a_new_finding_of_the_stored_state_fails_though_no_figure_changed(sound: Audit) -> None:
    verdict = judged(audit_of(counted_differently(), X), sound)
    assert failing(verdict) == {"BN009": ("right.1",)}
    assert check_of(verdict, "layer_esm").outcome == "pass"


def test_a_finding_of_the_stored_state_that_stood_in_the_baseline_passes() -> None:
    audit = audit_of(counted_differently(), X)
    verdict = judged(audit, audit)
    assert verdict.outcome == "pass"
    assert waived(verdict) == {"BN009": "baseline"}


def test_a_finding_of_the_stored_state_on_another_layer_is_new() -> None:
    before = audit_of(counted_differently("right.1"), X)
    after = audit_of(counted_differently(ONE), X)
    assert failing(judged(after, before)) == {"BN009": (ONE,)}


def test_an_accepted_finding_that_is_graded_up_in_the_settings_stays_accepted(
    wrong: Audit,
) -> None:
    policy = Policy(severity={"BN101": "error"}, ignore=NO_BN2.ignore)
    assert judged(wrong, wrong, policy=policy).outcome == "pass"


def test_limits_count_beside_a_baseline(wrong: Audit) -> None:
    verdict = judged(wrong, wrong, max_layer_esm=0.1)
    assert failing(verdict) == {"max_layer_esm": (ONE,)}


# Layers that were renamed, added and removed.


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model

    def forward(self, x: Tensor) -> Any:
        return self.backbone(x)


def test_renamed_layers_are_compared_with_what_they_were(wrong: Audit) -> None:
    renamed = audit_of(Wrapped(branches({ONE: 1.5})), X)
    verdict = judged(renamed, wrong)
    assert verdict.outcome == "pass"
    assert waived(verdict) == {"BN101": "baseline"}
    assert verdict.changes is not None
    assert {layer.name: layer.before_name for layer in verdict.changes.renamed} == {
        f"backbone.{name}": name for name in ("left.1", ONE, "right.1", "right.4")
    }
    worse = audit_of(Wrapped(branches({ONE: 1.5, "right.4": 2.0})), X)
    assert failing(judged(worse, wrong))["layer_esm"] == ("backbone.right.4",)


class Longer(nn.Module):
    """Branches with one more layer behind it, whose statistics are as given."""

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.trunk = branches()
        self.extra = nn.BatchNorm1d(32)
        with torch.no_grad():
            out = self.trunk.eval()(X)
        state = {
            "running_mean": out.mean(0),
            "running_var": variance * out.var(0, correction=0),
            "num_batches_tracked": torch.tensor(1000),
        }
        self.extra.load_state_dict(state, strict=False)

    def forward(self, x: Tensor) -> Any:
        return self.extra(self.trunk(x))


def test_a_new_layer_is_listed_and_fails_only_where_it_is_wrong() -> None:
    before = audit_of(Wrapped(branches()), X)
    verdict = judged(audit_of(Longer(1.0), X), before)
    assert verdict.changes is not None
    assert verdict.changes.added == ("extra",)
    assert verdict.outcome == "pass"
    assert failing(judged(audit_of(Longer(3.0), X), before))["BN101"] == ("extra",)


def test_a_layer_that_is_gone_is_listed_and_does_not_fail() -> None:
    verdict = judged(audit_of(Wrapped(branches()), X), audit_of(Longer(1.0), X))
    assert verdict.outcome == "pass"
    assert verdict.changes is not None
    assert verdict.changes.removed == ("extra",)


def test_a_baseline_of_another_network_is_refused(sound: Audit) -> None:
    other = nn.Sequential(nn.Linear(32, 7), nn.BatchNorm1d(7))
    with pytest.raises(InputError) as refused:
        judged(audit_of(other, X), sound)
    said = str(refused.value)
    assert "another network" in said
    assert "--write-baseline" in said
    assert "\n" not in said


def test_a_baseline_without_batchnorm_is_refused_and_so_is_a_network_that_lost_it(
    sound: Audit,
) -> None:
    without = audit_of(nn.Linear(32, 32), X)
    for audit, baseline in ((sound, without), (without, sound)):
        with pytest.raises(InputError, match="shares no BatchNorm layer"):
            judged(audit, baseline)
    assert judged(without, without).outcome == "pass"


# Baselines that were written elsewhere.


def rewritten(audit: Audit, change: Callable[[dict[str, Any]], None]) -> Audit:
    document = json.loads(audit.to_json())
    change(document)
    return Audit.from_json(json.dumps(document))


def as_an_older_version_wrote(document: dict[str, Any]) -> None:
    for layer in document["layers"]:
        del layer["left_out_squared_output_shift"]
    for name in ("correct", "agreed"):
        document["network"].pop(name)


def test_a_baseline_survives_being_written_and_read(sound: Audit, wrong: Audit) -> None:
    read = Audit.from_json(sound.to_json())
    assert judged(sound, read).changes == judged(sound, sound).changes
    assert failing(judged(wrong, read)) == failing(judged(wrong, sound))


def test_a_baseline_of_an_older_version_tells_to_write_it_anew(sound: Audit) -> None:
    verdict = judged(sound, rewritten(sound, as_an_older_version_wrote))
    assert not failing(verdict)
    assert check_of(verdict, "layer_esm").outcome == "pass"
    assert verdict.outcome == "inconclusive"
    remedy = check_of(verdict, "total_esm").remedy
    assert remedy is not None
    assert "older version" in remedy
    assert "--write-baseline" in remedy


def test_a_baseline_of_an_older_version_still_catches_a_layer(sound: Audit, wrong: Audit) -> None:
    verdict = judged(wrong, rewritten(sound, as_an_older_version_wrote))
    assert failing(verdict)["layer_esm"] == (ONE,)


def test_what_makes_the_sides_less_comparable_is_noted(sound: Audit) -> None:
    def measured_otherwise(document: dict[str, Any]) -> None:
        document["data"]["source"] = "other.npz"
        document["data"]["transform"] = "imagenet"
        document["batch_statistics_size"] = 16

    verdict = judged(sound, rewritten(sound, measured_otherwise))
    assert verdict.changes is not None
    notes = " ".join(verdict.changes.notes)
    for said in ("Other data: other.npz before", "Another transform: imagenet before", "of 16"):
        assert said in notes
    disagreement = check_of(verdict, "disagreement")
    assert disagreement.outcome == "inconclusive"
    assert "mini-batches of 16 before" in disagreement.sentence


def test_layers_that_are_wrong_on_both_sides_are_not_new_on_other_data(wrong: Audit) -> None:
    before = audit_of(branches({ONE: 1.5}), OTHER)
    assert "BN101" not in failing(judged(wrong, before))


def test_a_fresh_network_fails_against_a_trained_one(sound: Audit) -> None:
    found = failing(judged(audit_of(Branches(), X), sound))
    assert set(found["BN004"]) == {"left.1", ONE, "right.1", "right.4"}
    assert set(LAST) <= set(found["layer_esm"])


def test_deeper_layers_that_inherit_a_regression_are_named_as_well() -> None:
    x = gaussian(400, 32)

    def audit(factor: float) -> Audit:
        model = branches({"left.1": factor}, x)
        return audit_of(model, x)

    found = failing(judged(audit(3.0), audit(1.0)))["layer_esm"]
    assert set(found) == {"left.1", "left.4"}


def test_a_chain_of_other_width_is_another_network(sound: Audit) -> None:
    with pytest.raises(InputError, match="another network"):
        judged(audit_of(chain(2, width=16), gaussian(400, 16)), sound)
