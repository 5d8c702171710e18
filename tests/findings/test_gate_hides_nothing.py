"""What must not pass unseen: too much noise, figures that are gone, outputs that are not finite."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from audits import digits, digits_net
from judging import LAST, NO_BN2, X, audit_of, branches, check_of, failing, judged
from torch import Tensor, nn

from bnaudit.findings.policy import DEFAULT
from bnaudit.results import Audit

SHA = "5" * 64


@pytest.fixture(scope="module")
def sound() -> Audit:
    return audit_of(branches(), X, batch_size=32)


@pytest.fixture(scope="module")
def wrong() -> Audit:
    return audit_of(branches({LAST[0]: 2.0}), X, batch_size=32)


def with_broken_head(value: float) -> nn.Module:
    model = digits_net("healthy")
    with torch.no_grad():
        list(model.parameters())[-2].fill_(value)
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_fail_with_and_without_labels(value: float) -> None:
    x, y = (part[:160] for part in digits("test"))
    model = with_broken_head(value)
    for data in ((x, y), (x,)):
        audit = audit_of(model, *data)
        before = audit_of(digits_net("healthy"), *data)
        for baseline in (None, before):
            assert "BN205" in failing(judged(audit, baseline, policy=DEFAULT))
            assert "finite" in failing(judged(audit, baseline, policy=NO_BN2))
            assert "finite" in failing(judged(audit, baseline, policy=DEFAULT, fail_on="nothing"))


def without_figure(audit: Audit, name: str) -> Audit:
    layers = tuple(
        replace(layer, output_shift=None, total_shift=None, status="never-called")
        if layer.name == name
        else layer
        for layer in audit.layers
    )
    return replace(audit, layers=layers)


def test_a_layer_that_is_wrong_and_had_no_figure_before_fails(sound: Audit, wrong: Audit) -> None:
    before = without_figure(sound, LAST[0])
    assert failing(judged(wrong, before))["BN101"] == (LAST[0],)


def test_where_no_layer_has_figures_on_both_sides_the_gate_is_inconclusive(sound: Audit) -> None:
    before = sound
    for layer in sound.layers:
        before = without_figure(before, layer.name)
    before = replace(before, layers=(*before.layers[:-1], sound.layers[-1]))
    now = without_figure(sound, sound.layers[-1].name)
    verdict = judged(now, before)
    assert check_of(verdict, "layer_esm").outcome == "inconclusive"
    assert verdict.exit_code == 1


def test_labels_that_are_gone_are_told(sound: Audit) -> None:
    x, y = (part[:200] for part in digits("test"))
    before, now = audit_of(digits_net("healthy"), x, y), audit_of(digits_net("healthy"), x)
    check = check_of(judged(now, before), "accuracy")
    assert check.outcome == "inconclusive"
    assert "labels" in check.sentence
    assert judged(before, now).outcome == "pass"


def of_file(audit: Audit, key: str) -> Audit:
    return replace(audit, model=replace(audit.model, checkpoint_sha256=SHA, checkpoint_key=key))


def test_another_part_of_the_same_file_is_not_the_same_weights() -> None:
    model = branches()
    reset = copy.deepcopy(model)
    layer = reset.get_submodule(LAST[0])
    assert isinstance(layer, nn.BatchNorm1d)
    layer.reset_running_stats()
    assert isinstance(layer.num_batches_tracked, Tensor)
    layer.num_batches_tracked.fill_(1000)
    before, after = audit_of(model, X), audit_of(reset, X)
    assert "BN004" in failing(judged(of_file(after, "ema"), of_file(before, "model")))


def test_what_noise_could_hide_is_inconclusive() -> None:
    """On 160 samples of their own a layer of the sample model may be off by 0.2 unnoticed."""
    x, y = digits("test")
    model = digits_net("healthy")
    halves = [(x[part], y[part]) for part in (slice(0, 80), slice(80, 160))]
    verdict = judged(*(audit_of(model, *half) for half in halves))
    assert verdict.outcome == "inconclusive"
    assert "blocks.3.bn2" in check_of(verdict, "layer_esm").layers
    together = audit_of(model, x, y)
    assert judged(together, together).outcome == "pass"


@pytest.mark.parametrize("samples", [10, 100])
@pytest.mark.parametrize("name", ["healthy", "small_batch"])
def test_the_same_weights_on_the_same_few_samples_are_certain_to_be_the_same(
    name: str, samples: int
) -> None:
    x, y = (part[:samples] for part in digits("test"))
    audit = of_file(audit_of(digits_net(name), x, y), "model")
    verdict = judged(audit, audit, tolerance=dict.fromkeys(("layer_esm", "total_esm"), 0.0))
    assert verdict.outcome == "pass"
    assert verdict.changes is not None
    for one in verdict.changes.network:
        assert (one.change.surely_low, one.change.surely_high) == (0, 0)
    for layer in verdict.changes.layers:
        assert layer.output_shift is not None
        assert (layer.output_shift.surely_low, layer.output_shift.surely_high) == (0, 0)


def test_a_layer_that_is_ignored_in_everything_is_left_out_of_the_mean(
    sound: Audit, wrong: Audit
) -> None:
    ignoring = {"per_layer_ignores": {"left.*": ["all"]}}
    assert set(failing(judged(wrong, max_total_esm=0.05))) >= {"max_total_esm"}
    assert judged(wrong, max_total_esm=0.05, **ignoring).outcome == "pass"
    assert "total_esm" in failing(judged(wrong, sound))
    assert judged(wrong, sound, **ignoring).outcome == "pass"


def test_an_ignored_check_that_had_no_occasion_is_not_called_unneeded(
    sound: Audit, wrong: Audit
) -> None:
    ignoring = {"per_layer_ignores": {LAST[0]: ["layer_esm", "max_layer_esm", "BN101"]}}
    assert judged(wrong, **ignoring).unused_ignores == ()
    assert len(judged(sound, sound, max_layer_esm=0.5, **ignoring).unused_ignores) == 3


def test_a_limit_that_is_ignored_somewhere_says_so(wrong: Audit) -> None:
    ignoring = {"per_layer_ignores": {LAST[0]: ["max_layer_esm", "BN101"]}}
    check = check_of(judged(wrong, max_layer_esm=0.1, **ignoring), "max_layer_esm")
    assert check.outcome == "pass"
    assert f"leave out {LAST[0]}" in check.sentence


def test_a_verdict_is_true_where_it_passes(sound: Audit, wrong: Audit) -> None:
    assert judged(sound)
    assert not judged(wrong)
    assert "BN101" in repr(judged(wrong))


def test_where_only_the_data_changed_the_remedy_is_not_to_recalibrate() -> None:
    audits = [of_file(audit_of(branches(), x), "model") for x in (X, 2 * X + 1)]
    verdict = judged(audits[1], audits[0])
    for name in ("BN101", "layer_esm"):
        check = check_of(verdict, name)
        assert check.outcome == "fail"
        assert check.remedy is not None
        assert check.remedy.startswith("The checkpoint is that of the baseline")
        assert check.command is None


class WithAux(nn.Module):
    """A layer that only training calls, as the heads of GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.aux = branches(), nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.aux(self.main(x)) if self.training else self.main(x)


def test_a_layer_that_nothing_calls_is_not_waived_for_equal_figures() -> None:
    model = WithAux().eval()
    model.aux.num_batches_tracked.fill_(1000)
    with torch.no_grad():
        model.aux.running_mean.fill_(0.5)
    before = audit_of(model, X)
    model.aux.running_var.fill_(float("nan"))
    after = audit_of(model, X)
    assert before.layers == after.layers
    assert before.network == after.network
    for files in (("", ""), ("5", "6")):
        sides = [
            replace(a, model=replace(a.model, checkpoint_sha256=f * 64 or None))
            for a, f in zip((after, before), files, strict=True)
        ]
        assert failing(judged(*sides))["BN001"] == ("aux",)


def test_outputs_that_are_not_finite_fail_where_no_layer_has_figures_too() -> None:
    audit = audit_of(with_broken_head(float("nan")), *(part[:160] for part in digits("test")))
    for layer in audit.layers:
        audit = without_figure(audit, layer.name)
    assert "finite" in failing(judged(audit, policy=DEFAULT, fail_on="nothing"))
