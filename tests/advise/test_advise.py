"""What is advised on real models, and that every sentence says where its figures stand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from advised import (
    NAMES,
    check_figures,
    digits,
    frozen_fine_tuned,
    measured,
    names,
    sample_model,
)
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.findings.advice.ranking import advice_of
from bnaudit.findings.catalogue import all_rules
from bnaudit.results import Audit, Finding
from bnaudit.results.advice import Advice
from bnaudit.results.state import State
from bnaudit.verbs.advise import advise


@pytest.fixture(scope="module")
def audits() -> dict[str, Audit]:
    return {name: measured(name, batch_size=32) for name in NAMES}


@pytest.fixture(scope="module")
def trap() -> nn.Module:
    return frozen_fine_tuned()


@pytest.fixture(scope="module")
def trap_audit(trap: nn.Module) -> Audit:
    return bnaudit.measure(trap, TensorDataset(*digits("test")), batch_size=32)


@pytest.mark.parametrize("name", ["small_batch", "lagging_ema", "averaged"])
def test_where_the_estimates_cost_accuracy_recalibration_is_first(audits, name):
    advice = advise(audits[name])
    assert advice.outcome == "better"
    assert names(advice)[0] == "recalibrate"
    assert "leave-as-it-is" not in names(advice)
    assert advice.against == ()
    first = advice.remedies[0]
    assert first.rank == 1
    assert first.command == "bnaudit.recalibrate(model, calibration_data, verify=heldout_data)"
    paths = {path for sentence in first.sentences for path in sentence.paths}
    assert {"network.deployed_compared.accuracy", "network.batch_statistics.loss"} <= paths


def test_where_nothing_was_found_nothing_has_to_be_done(audits):
    assert audits["healthy"].findings == ()
    advice = advise(audits["healthy"])
    assert names(advice) == ["leave-as-it-is"]
    assert advice.remedies[0].sentences[0].text.startswith("Nothing has to be done")
    assert advice.against == ()


def test_a_model_fine_tuned_with_frozen_statistics_is_left_as_it_is(trap, trap_audit):
    worst = max(layer.output_shift.low for layer in trap_audit.audited)
    assert worst > 1  # ten times the threshold of BN101
    assert any(finding.code == "BN101" for finding in trap_audit.findings)
    advice = advise(trap_audit)
    assert advice.outcome == "no better"
    assert names(advice)[0] == "leave-as-it-is"
    assert "recalibrate" not in names(advice)
    assert [remedy.name for remedy in advice.against] == ["recalibrate"]
    assert advice.against[0].command is None
    told = " ".join(sentence.text for sentence in advice.remedies[0].sentences)
    assert "Such a shift is no fault by itself" in told
    # and that is right: exact statistics make the loss worse
    x, y = digits("test")
    model = copy.deepcopy(trap)
    bnaudit.recalibrate(model, TensorDataset(*digits("train")))
    assert nn.functional.cross_entropy(model(x), y) > nn.functional.cross_entropy(trap(x), y)


def test_without_labels_the_outcome_is_open(trap):
    data = TensorDataset(digits("test")[0])
    lagging = bnaudit.measure(sample_model("lagging_ema"), data, batch_size=32)
    frozen = bnaudit.measure(trap, data, batch_size=32)
    for audit in (lagging, frozen):
        advice = advise(audit)
        assert advice.outcome == "open"
        assert names(advice)[:2] == ["measure-with-labels", "recalibrate"]
        told = advice.remedies[1].sentences[0].text
        assert "is open" in told
        assert "bnaudit recalibrate verifies" in told
        assert check_figures(advice, audit) > 2


def test_every_figure_is_the_value_at_its_path(audits, trap_audit):
    for audit in (*audits.values(), trap_audit):
        assert check_figures(advise(audit), audit) > 4


def test_noise_of_small_batches_speaks_for_remedies_in_training(audits):
    audit = measured("small_batch", batch_size=2, train_batch_size=2, samples=160)
    assert any(finding.code == "BN202" for finding in audit.findings)
    advice = advise(audit)
    found = names(advice)
    expected = {
        *("larger-normalisation-batches", "frozen-statistics", "batch-free-norm"),
        "example-weighing",
    }
    assert expected <= set(found)
    assert found[:2] == ["measure-in-larger-batches", "recalibrate"]
    first = next(r for r in advice.remedies if r.name == "larger-normalisation-batches")
    assert first.sentences[0].text == "The model is trained with batches of 2."
    assert check_figures(advice, audit) > 10
    assert not expected & set(names(advise(audits["healthy"])))


@pytest.mark.parametrize("name", ["small_batch", pytest.param("averaged", marks=pytest.mark.slow)])
def test_noise_of_small_batches_is_no_evidence_against_exact_statistics(name):
    audit = measured(name, batch_size=2, samples=300, attribute="none")
    score = audit.network
    assert score.batch_statistics.accuracy < score.deployed_compared.accuracy
    advice = advise(audit)
    assert advice.outcome == "open"
    assert names(advice)[:3] == ["measure-in-larger-batches", "recalibrate", "leave-as-it-is"]
    assert advice.against == ()
    assert check_figures(advice, audit) > 10
    # and that is right: exact statistics make it better, on samples that took no part
    x, y = digits("test")
    model = sample_model(name)
    bnaudit.recalibrate(model, TensorDataset(*digits("train")))
    assert nn.functional.cross_entropy(model(x), y) < nn.functional.cross_entropy(
        sample_model(name)(x), y
    )


def test_wrong_preprocessing_comes_first_and_speaks_against_new_statistics():
    x, y = digits("test")
    audit = bnaudit.measure(sample_model("healthy"), TensorDataset(x * 255, y), batch_size=32)
    assert any(finding.code == "BN301" for finding in audit.findings)
    advice = advise(audit)
    assert names(advice)[0] == "mend-the-preprocessing"
    assert "leave-as-it-is" not in names(advice)
    assert "recalibrate" in [remedy.name for remedy in advice.against]
    assert check_figures(advice, audit) > 1


def test_moved_data_speak_for_these_data_or_statistics_for_each_domain():
    x, y = digits("test")
    dim = TensorDataset((0.6 * x + 0.2).clamp(0, 1), y)
    audit = bnaudit.measure(
        sample_model("healthy"), dim, train_data=TensorDataset(*digits("train")), batch_size=32
    )
    assert any(finding.code == "BN302" for finding in audit.findings), audit.findings
    found = names(advise(audit))
    assert found[0] == "adapt-to-these-data"
    assert "recalibrate" not in found  # the estimates are right for the training data
    assert "domain-statistics" in found
    assert check_figures(advise(audit), audit) > 5


def test_statistics_that_were_never_estimated_are_estimated_even_without_labels():
    model = sample_model("healthy")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    audit = bnaudit.measure(model, TensorDataset(digits("test")[0]), batch_size=32)
    assert any(finding.code == "BN004" for finding in audit.findings)
    advice = advise(audit)
    assert names(advice)[0] == "recalibrate"


def test_every_finding_that_is_no_information_leads_to_a_remedy(audits):
    """Whatever rule there is: none of its findings is passed over in silence."""
    healthy = audits["healthy"]
    for rule in all_rules():
        if not issubclass(rule.subject, (Audit, State)):
            continue
        finding = Finding(rule.code, rule.name, "error", "It is so.", rule.remedy, rule.source)
        audit = replace(healthy, findings=(finding,))
        advice = advice_of(audit, "healthy")
        check_figures(advice, audit)
        remedies = (*advice.remedies, *advice.against)
        assert {remedy.name for remedy in remedies} - {"leave-as-it-is"}, rule.code


def test_advice_is_read_back(audits):
    advice = advise(audits["averaged"])
    assert Advice.from_json(advice.to_json()) == advice


def test_an_audit_with_less_in_it_is_advised_on_too(audits):
    audit = replace(audits["averaged"], verdict=None, data=None, attribution=None, request=None)
    lacking = (
        replace(audit, network=replace(audit.network, batch_size=None)),
        replace(audit, network=replace(audit.network, only_batch_correct=None)),
        replace(audit, network=None, batch_statistics_size=None),
        replace(audit, layers=()),
    )
    assert [advise(one).outcome for one in lacking] == ["better", "better", "open", "better"]
    assert all(advise(one).remedies for one in lacking)


def test_accuracy_and_loss_that_disagree_decide_nothing(audits):
    """From a real Audit, with the loss by mini-batches' statistics raised."""

    def advised(by_nats: float) -> Advice:
        audit = audits["averaged"]
        network = audit.network
        loss = network.deployed_compared.loss + by_nats
        other = replace(network.batch_statistics, loss=loss)
        return advise(replace(audit, network=replace(network, batch_statistics=other)))

    network = audits["averaged"].network
    errors = (
        network.deployed_compared.loss_standard_error,
        network.batch_statistics.loss_standard_error,
    )
    certain = 2 * sum(error**2 for error in errors) ** 0.5
    assert advised(1.01 * certain).outcome == "divided"
    assert names(advised(1.01 * certain))[:2] == ["leave-as-it-is", "recalibrate"]
    # a loss that is higher by what chance may be takes nothing from ten points of accuracy
    for by_nats in (0.0001, 0.99 * certain):
        assert advised(by_nats).outcome == "better"
        assert names(advised(by_nats))[0] == "recalibrate"
