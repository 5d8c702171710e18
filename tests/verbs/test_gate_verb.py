"""The verb `gate` on Audits in hand and in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import classifier, images
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.config import GateSettings, Tolerance
from bnaudit.errors import InputError
from bnaudit.findings.policy import Policy
from bnaudit.report.files import write_results
from bnaudit.results import Audit, Gate
from bnaudit.verbs.gate import gate

DATA = TensorDataset(*images(300))
ESTIMATES = GateSettings(select=("BN1",))


def audit(factor: float = 1.0, **options: Any) -> Audit:
    """The last layer's variance is off by this factor; else exact."""
    model: nn.Module = classifier()
    bnaudit.recalibrate(model, DATA, force=True)
    running_var = model.get_submodule("8").running_var
    assert isinstance(running_var, Tensor)
    running_var *= factor
    return bnaudit.measure(model, DATA, attribute="none", **options)


@pytest.fixture(scope="module")
def sound() -> Audit:
    return audit()


@pytest.fixture(scope="module")
def wrong() -> Audit:
    return audit(3.0)


@pytest.fixture
def files(sound: Audit, wrong: Audit, tmp_path: Path) -> Path:
    """sound.json and the folder wrong/."""
    (tmp_path / "sound.json").write_text(sound.to_json())
    write_results(wrong, tmp_path / "wrong", plots=False)
    return tmp_path


def test_an_audit_is_judged_in_hand_from_its_file_and_from_its_folder(
    wrong: Audit, files: Path
) -> None:
    places = (wrong, files / "wrong", files / "wrong" / "audit.json", str(files / "wrong"))
    verdicts = [gate(place, settings=ESTIMATES) for place in places]
    assert {verdict.outcome for verdict in verdicts} == {"fail"}
    assert len({verdict.checks for verdict in verdicts}) == 1
    assert verdicts[0].subject.source == "Sequential"
    assert verdicts[1].subject.source == str(files / "wrong")


def test_a_baseline_is_an_audit_a_file_or_that_of_the_settings(
    sound: Audit, wrong: Audit, files: Path
) -> None:
    path = files / "sound.json"
    settings = ESTIMATES.model_copy(update={"baseline": path})
    verdicts = [
        gate(wrong, baseline=sound, settings=ESTIMATES),
        gate(wrong, baseline=path, settings=ESTIMATES),
        gate(wrong, baseline=str(path), settings=ESTIMATES),
        gate(wrong, settings=settings),
    ]
    for verdict in verdicts:
        assert verdict.changes is not None
        assert verdict.changes.paired
        assert "layer_esm" in [check.name for check in verdict.with_outcome("fail")]
    assert verdicts[1].changes is not None
    assert verdicts[1].changes.before.source == str(path)


def test_a_baseline_that_is_given_wins_over_that_of_the_settings(wrong: Audit, files: Path) -> None:
    settings = ESTIMATES.model_copy(update={"baseline": files / "nope.json"})
    assert gate(wrong, baseline=wrong, settings=settings).outcome == "pass"


def test_without_settings_those_by_default_are_in_force(wrong: Audit) -> None:
    assert gate(wrong) == gate(wrong, settings=GateSettings())
    assert gate(wrong).outcome == "fail"


@pytest.mark.parametrize("name", ["nope.json", "nope", "other.json"])
def test_files_that_are_no_audits_are_refused_by_their_name(
    sound: Audit, files: Path, name: str
) -> None:
    (files / "other.json").write_text('{"schema": 1}')
    for ask in (lambda: gate(files / name), lambda: gate(sound, baseline=files / name)):
        with pytest.raises(InputError) as refused:
            ask()
        assert name in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_base_checkpoint_in_the_settings_is_refused_not_overlooked(sound: Audit) -> None:
    with pytest.raises(InputError, match="base_checkpoint"):
        gate(sound, settings=GateSettings(base_checkpoint=Path("old.pt")))


def test_a_policy_may_use_names_for_codes(wrong: Audit) -> None:
    policy = Policy(thresholds={"estimation-shift": {"shift": 5.0}})
    assert gate(wrong, settings=ESTIMATES, policy=policy).outcome == "pass"
    with pytest.raises(InputError, match="BN999"):
        gate(wrong, policy=Policy(ignore=("BN999",)))


def test_the_audits_are_left_as_they_were(sound: Audit, wrong: Audit) -> None:
    before = sound.to_json(), wrong.to_json()
    gate(wrong, baseline=sound, policy=Policy(ignore=("BN1",)))
    assert (sound.to_json(), wrong.to_json()) == before


def test_the_verdict_names_both_sides(sound: Audit, wrong: Audit) -> None:
    verdict = gate(wrong, baseline=sound)
    assert verdict.changes is not None
    assert (verdict.subject.samples, verdict.changes.before.samples) == (300, 300)
    assert verdict.subject.tool == bnaudit.__version__


def test_a_verdict_with_a_baseline_survives_being_written_and_read(
    sound: Audit, wrong: Audit
) -> None:
    verdict = gate(wrong, baseline=sound)
    assert Gate.from_json(verdict.to_json()) == verdict


def test_a_wide_tolerance_lets_a_change_pass(sound: Audit, wrong: Audit) -> None:
    tolerance = Tolerance(layer_esm=9.0, total_esm=9.0, disagreement=1.0, accuracy=1.0)
    settings = ESTIMATES.model_copy(update={"tolerance": tolerance})
    verdict = gate(wrong, baseline=sound, settings=settings)
    assert verdict.outcome == "pass"
    assert {each.setting for each in verdict.waived} == {"tolerance"}
