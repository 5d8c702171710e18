"""The comparison of domains against plain oracles, and what it concludes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from alone import recalibrate_alone as recalibrate
from domain_models import (
    Levels,
    SeparateLevels,
    Twice,
    accuracy_and_loss,
    as_data,
    bright,
    digits,
    digits_net,
    hazy,
    trained_levels,
)

from bnaudit.checkpoints.bank import read_bank
from bnaudit.errors import BnauditError, InputError
from bnaudit.findings.conclude import conclude
from bnaudit.results.domains import CHECKPOINT, POOLED, Domains
from bnaudit.verbs.apply_domain import apply_domain
from bnaudit.verbs.domains import domains
from bnaudit.verbs.domains_statistics import most_of_each
from bnaudit.verbs.measure import measure

VIEWS = {"plain": lambda x: x, "bright": bright, "hazy": hazy}


def few() -> tuple[torch.Tensor, torch.Tensor]:
    """What the statistics are computed on: a multiple of the batch size, and not too many."""
    images, labels = digits("test")
    return images[:128], labels[:128]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Domains, Path]:
    """Three views of the digits: calibrated on the test images, verified on the verify images."""
    images, labels = few()
    others, other_labels = digits("verify")
    path = tmp_path_factory.mktemp("domains") / "bank.safetensors"
    made = domains(
        digits_net(),
        {name: as_data(view(images), labels) for name, view in VIEWS.items()},
        verify={name: as_data(view(others), other_labels) for name, view in VIEWS.items()},
        bank=path,
    )
    return made, path


@pytest.mark.parametrize(
    "whose", ["hazy", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plain", "bright"))]
)
def test_each_cell_is_what_a_model_with_these_statistics_does_on_these_data(
    compared: tuple[Domains, Path], whose: str
) -> None:
    result, _ = compared
    images, labels = few()
    others, other_labels = digits("verify")
    model = digits_net()
    # Layer after layer: the oracle for what the comparison does in one pass.
    recalibrate(model, as_data(VIEWS[whose](images), labels), method="sequential")
    for name, other in VIEWS.items():
        scores = result.cell(whose, name).scores
        accuracy, loss = accuracy_and_loss(model, other(others), other_labels)
        assert scores.accuracy is not None
        assert scores.loss is not None
        assert scores.accuracy.value == pytest.approx(accuracy, abs=1e-9)
        assert scores.loss.value == pytest.approx(loss, rel=1e-4)


def test_the_cells_of_the_checkpoint_are_what_it_does_on_these_data(
    compared: tuple[Domains, Path],
) -> None:
    result, _ = compared
    others, other_labels = digits("verify")
    for name, other in VIEWS.items():
        scores = result.cell(CHECKPOINT, name).scores
        accuracy, _ = accuracy_and_loss(digits_net(), other(others), other_labels)
        assert scores.accuracy is not None
        assert scores.accuracy.value == pytest.approx(accuracy, abs=1e-9)


def test_the_shift_of_a_cell_is_that_of_an_audit(compared: tuple[Domains, Path]) -> None:
    result, path = compared
    images, labels = digits("verify")
    model = digits_net()
    with apply_domain(model, path, "bright"):
        audit = measure(model, as_data(hazy(images), labels), attribute="none")
    squares = [layer.total_shift.value**2 for layer in audit.audited]
    expected = math.sqrt(np.mean(squares))
    assert result.cell("bright", "hazy").shift == pytest.approx(expected, rel=1e-4)


def test_the_pooled_statistics_are_those_of_all_domains_in_one_data_set(
    compared: tuple[Domains, Path],
) -> None:
    _, path = compared
    images, labels = few()
    model = digits_net()
    everything = torch.cat([view(images) for view in VIEWS.values()])
    recalibrate(model, as_data(everything, labels.repeat(3)), method="sequential")
    pooled = read_bank(path).statistics[POOLED]
    state = model.state_dict()
    assert len(pooled) == 9
    for name, (mean, var) in pooled.items():
        torch.testing.assert_close(mean, state[f"{name}.running_mean"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(var, state[f"{name}.running_var"], rtol=1e-4, atol=1e-5)


def test_the_distance_of_two_domains_is_that_of_their_statistics(
    compared: tuple[Domains, Path],
) -> None:
    result, path = compared
    bank, model = read_bank(path), digits_net()
    for layer in result.layers:
        gamma = model.get_submodule(layer.name).weight.detach().double().numpy()
        for (first, second), found in zip(result.pairs, layer.distances, strict=True):
            (m1, v1), (m2, v2) = (
                [part.double().numpy() for part in bank.statistics[one][layer.name]]
                for one in (first, second)
            )
            squared = ((m1 - m2) ** 2 + (np.sqrt(v1) - np.sqrt(v2)) ** 2) / ((v1 + v2) / 2 + 1e-5)
            expected = math.sqrt(np.average(squared, weights=gamma**2))
            assert found is not None
            assert found.plain == pytest.approx(expected, rel=1e-4)
            assert found.value <= found.plain


def test_own_statistics_win_tens_of_points_over_the_checkpoints(
    compared: tuple[Domains, Path],
) -> None:
    result, _ = compared
    gains = {gain.domain: gain for gain in result.worth.own_gains}
    for name in ("bright", "hazy"):
        assert gains[name].significant
        assert gains[name].accuracy.low is not None
        assert gains[name].accuracy.low > 0.1
    assert not gains["plain"].significant
    assert result.worth.level == "own"
    assert result.worth.common == POOLED
    codes = {finding.code for finding in result.findings}
    assert {"BN310", "BN311"} <= codes
    assert not {"BN312", "BN313", "BN314", "BN315"} & codes
    assert result.sharing is None
    assert result.notes == ()
    assert result.cell("hazy", "hazy").shift < 0.05 < result.cell(CHECKPOINT, "hazy").shift


def test_the_result_survives_its_document_and_the_model_is_left_alone(
    compared: tuple[Domains, Path],
) -> None:
    result, _ = compared
    assert Domains.from_json(result.to_json()) == result
    frame = result.to_frame()
    assert len(frame) == 15
    assert frame["accuracy"].between(0, 1).all()
    assert len(result.layers_to_frame()) == 27
    model, images = digits_net(), digits("verify")[0]
    before = copy.deepcopy(model.state_dict())
    domains(model.train(), {"a": as_data(images[:100]), "b": as_data(hazy(images[100:200]))})
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_two_halves_of_one_domain_need_no_statistics_of_their_own() -> None:
    images, labels = digits("train")
    one, two = (as_data(images[part], labels[part]) for part in (slice(450), slice(450, 900)))
    calibration = {"one": as_data(*digits("test")), "two": as_data(*digits("verify"))}
    result = domains(digits_net(), calibration, verify={"one": one, "two": two})
    assert result.worth.level == "common"
    assert result.worth.common == CHECKPOINT
    assert {finding.code for finding in result.findings} == {"BN312"}


@pytest.mark.slow
def test_a_small_domain_does_not_make_the_pooled_statistics_noisier_than_a_large_ones_own() -> None:
    # All hazy: statistics of their own can only be better than pooled ones by the pool's noise.
    images, labels = digits("train")
    others, other_labels = (
        torch.cat(pair) for pair in zip(digits("test"), digits("verify"), strict=True)
    )
    of, on = {"one": (0, 440), "two": (440, 880), "few": (880, 884)}, {}
    for name, start in (("one", 0), ("two", 350), ("few", 700)):
        on[name] = as_data(hazy(others[start : start + 350]), other_labels[start : start + 350])
    data = {name: as_data(hazy(images[a:b]), labels[a:b]) for name, (a, b) in of.items()}
    made = domains(digits_net(), data, verify=on)
    assert made.worth.common == POOLED
    assert made.pooled_samples == 440
    assert "BN311" not in {finding.code for finding in made.findings}
    (note,) = [one for one in made.notes if one.startswith("pooled: ")]
    assert "4 to 440 samples; up to 218 of each" in note


def test_the_pool_is_in_equal_parts_unless_it_were_smaller_than_a_domains_own_sample() -> None:
    for sizes in ([7], [5, 5], [1000, 1000, 16], [1000, 400], [1000, 900, 800], [1, 300], [2, 3]):
        enough = max(sizes)
        expected = next(
            most
            for most in range(min(sizes), enough + 1)
            if sum(min(size, most) for size in sizes) >= enough
        )
        assert most_of_each(sizes) == expected, sizes
    assert most_of_each([1000, 900, 800]) == 800
    assert most_of_each([1000, 1000, 16]) == 492


def test_few_samples_leave_it_undecided_and_say_how_many_would_do() -> None:
    images, labels = digits("test")
    one, two = (as_data(images[part], labels[part]) for part in (slice(40), slice(40, 80)))
    result = domains(digits_net(), {"one": one, "two": two})
    assert result.worth.level == "undecided"
    assert [finding.code for finding in result.findings] == ["BN314"]
    assert "samples a domain would tell" in result.worth.sentence


def test_without_labels_it_says_what_cannot_be_known() -> None:
    images = digits("test")[0][:256]
    result = domains(digits_net(), {"plain": as_data(images), "hazy": as_data(hazy(images))})
    assert result.worth.level == "unlabelled"
    assert "Without labels it cannot be known" in result.worth.sentence
    assert result.worth.gains == ()
    own = result.cell("hazy", "hazy").scores
    assert own.accuracy is None
    assert own.loss is None
    assert own.agreement is not None
    assert own.agreement.value < 0.8
    assert own.kl is not None
    assert own.kl.value > 0.1
    codes = {finding.code for finding in result.findings}
    assert "BN314" in codes
    assert not codes & {"BN311", "BN312", "BN315"}


def test_a_domain_without_labels_beside_labelled_ones_is_named() -> None:
    images, labels = digits("test")
    made = domains(digits_net(), {"plain": as_data(images, labels), "hazy": as_data(hazy(images))})
    assert [gain.domain for gain in made.worth.gains] == ["plain"]
    assert "Nothing is known of the accuracy on hazy" in made.worth.sentence


def test_a_domain_of_a_single_class_is_hurt_by_statistics_of_its_own() -> None:
    # They normalise away what tells the class from the others.
    images, labels = digits("train")
    mixed, mixed_labels = digits("verify")
    threes = labels == 3
    made = domains(
        digits_net(),
        {
            "mixed": as_data(mixed, mixed_labels),
            "threes": as_data(images[threes], labels[threes]),
        },
    )
    (finding,) = [one for one in made.findings if one.code == "BN315"]
    assert "threes" in finding.sentence
    assert "mixed" not in finding.sentence
    assert made.worth.common == CHECKPOINT
    assert any("mix their classes in other shares" in note for note in made.notes)
    assert "BN311" not in {one.code for one in made.findings}


def test_a_shared_head_is_compared_with_statistics_for_each_level() -> None:
    model = trained_levels()
    images, labels = digits("test")
    others, other_labels = digits("verify")
    made = domains(
        model, {"digits": as_data(images, labels)}, verify={"digits": as_data(others, other_labels)}
    )
    separate, shared = SeparateLevels(model), copy.deepcopy(model)
    for one in (separate, shared):
        recalibrate(one, as_data(images, labels), method="sequential")
    sharing = made.sharing
    assert sharing is not None
    assert sharing.accuracy is not None
    assert sharing.loss is not None
    for one, accuracy, loss in (
        (shared, sharing.accuracy.before, sharing.loss.before),
        (separate, sharing.accuracy.after, sharing.loss.after),
    ):
        expected = accuracy_and_loss(one, others, other_labels)
        assert accuracy == pytest.approx(expected[0], abs=1e-9)
        assert loss == pytest.approx(expected[1], rel=1e-4)
    assert sharing.accuracy.low is not None
    assert sharing.accuracy.low > 0.2
    (layer,) = sharing.layers
    assert (layer.name, len(layer.calls)) == ("norm", 2)
    assert all(c.from_shared is not None and c.from_shared.low > 0.3 for c in layer.calls)
    assert made.worth.level == "alone"
    assert [finding.code for finding in made.findings] == ["BN313"]
    # A single look: the accuracy decides, also where the loss falls for certain.
    assert sharing.loss.high is not None
    assert sharing.loss.high < 0
    chance = replace(made, sharing=replace(sharing, p_value=0.06))
    assert conclude((chance,)) == ()


def test_statistics_of_each_call_are_left_out_where_memory_does_not_hold_the_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bnaudit.verbs.calibration_memory.free_memory", lambda device: 4096)
    images, labels = digits("test")
    made = domains(trained_levels(), {"digits": as_data(images, labels)})
    assert any("too much, so layer by layer" in note for note in made.notes)
    assert made.sharing is not None
    assert made.sharing.separate is None
    assert "not tried: they need the activations of all samples" in (made.sharing.note or "")
    assert made.cell("digits", "digits").scores.accuracy is not None


def test_without_labels_sharing_is_told_by_what_it_does_to_the_outputs() -> None:
    images, _ = digits("test")
    made = domains(trained_levels(), {"digits": as_data(images)}, task="other")
    assert made.sharing is not None
    assert made.sharing.accuracy is None
    assert made.sharing.separate is not None
    (finding,) = [one for one in made.findings if one.code == "BN313"]
    assert "move the outputs by" in finding.sentence


def test_levels_that_are_alike_share_their_statistics_for_free() -> None:
    torch.manual_seed(0)
    model = Levels(1.0, 0.0)
    model.coarse.load_state_dict(model.fine.state_dict())
    images, labels = digits("test")
    noise = torch.rand(len(images), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    flat = 0.02 * noise + images.mean((1, 2, 3), keepdim=True)
    made = domains(model, {"flat": as_data(flat, labels)})
    assert made.sharing is not None
    assert "BN313" not in {finding.code for finding in made.findings}


def test_batches_that_make_other_calls_leave_a_note() -> None:
    torch.manual_seed(0)
    images, _ = digits("test")
    batches = [images[:32], images[32:64] + 1, images[64:96], images[96:128] + 1]
    made = domains(Twice(), {"all": batches}, verify={"all": [images[128:160]]})
    assert made.sharing is not None
    assert made.sharing.separate is None
    assert "statistics for each call were not tried" in (made.sharing.note or "")
    assert "BN313" not in {finding.code for finding in made.findings}


def _labelled(n: int, low: int = 0, high: int = 10) -> object:
    generator = torch.Generator().manual_seed(n)
    labels = torch.randint(low, high, (n,), generator=generator)
    return as_data(torch.rand(n, 1, 8, 8, generator=generator), labels)


WRONG = (
    ({}, "no domain is named"),
    ({"day": _labelled(40)}, "one domain, day: there is nothing to compare it with"),
    ({"day": _labelled(40), "pooled": _labelled(40)}, "domain pooled: is what other statistics"),
    ({"day": _labelled(40), "a/b": _labelled(40)}, "domain 'a/b': a name has letters"),
    ({"day": _labelled(40), "night": as_data(torch.empty(0, 1, 8, 8))}, "domain night: the data"),
    ({"day": _labelled(40), "night": _labelled(1)}, "domain night: 1 samples are too few"),
    ({"day": _labelled(40), "night": _labelled(40, 5, 20)}, "domain night: the labels run from"),
    ({"day": _labelled(40), "night": "images"}, "domain night: data is 'images'"),
    ({"day": _labelled(40), "night": as_data(torch.rand(40, 3, 8, 8))}, "domain night: the model"),
)


@pytest.mark.parametrize(("data", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_is_wrong_is_said_of_the_domain_it_is_wrong_with(
    data: dict[str, object], says: str
) -> None:
    with pytest.raises(BnauditError, match="^" + says.replace("(", r"\(")) as raised:
        domains(digits_net(), data)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_verification_data_that_calibrated_another_domain_prove_nothing() -> None:
    images, labels = digits("test")
    same = as_data(images[:100], labels[:100])
    with pytest.raises(InputError, match="domain b: its verification data are all calibration"):
        domains(
            digits_net(),
            {"a": same, "b": as_data(hazy(images[:100]), labels[:100])},
            verify={"a": as_data(images[100:200], labels[100:200]), "b": same},
        )


def test_the_same_samples_under_two_names_are_told() -> None:
    same = as_data(*digits("test"))
    made = domains(digits_net(), {"a": same, "b": same})
    assert any("a and b are the same samples" in note for note in made.notes)
    assert "BN310" not in {finding.code for finding in made.findings}


class Classes(torch.utils.data.TensorDataset):
    """Labelled data that know what their classes are called."""

    def __init__(self, classes: list[str]) -> None:
        super().__init__(torch.rand(40, 1, 8, 8), torch.arange(40) % len(classes))
        self.classes = classes


def test_domains_whose_classes_differ_are_refused() -> None:
    given = {"day": Classes(["car", "cat", "dog"]), "night": Classes(["car", "dog"])}
    with pytest.raises(InputError, match="domain night: its classes are car, dog, those of domain"):
        domains(digits_net(), given)
