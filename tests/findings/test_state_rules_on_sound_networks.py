"""No rule about the stored state says more than "info" of a network that is in order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stored_states import Net, findings_of, state_of, train

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"


@pytest.mark.parametrize("name", sorted(path.stem for path in SAMPLES.glob("*.pt")))
def test_the_stored_state_of_no_sample_model_is_at_fault(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(SAMPLES), *sys.path])
    import digits

    model = digits.model()
    model.load_state_dict(torch.load(SAMPLES / f"{name}.pt", weights_only=True))
    found = findings_of(model)
    assert {finding.severity for finding in found.values()} <= {"info"}
    if name == "healthy":
        assert not found


@pytest.mark.shared
@pytest.mark.parametrize("blocks", [3, 9])
def test_trained_resnets_are_in_order_and_agree_with_numpy(
    blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests" / "engine"), *sys.path])
    from cifar_resnet import CHECKPOINTS, DATA, trained

    if not (DATA / CHECKPOINTS[blocks]).is_file():
        pytest.skip("no shared checkpoints")
    model = trained(blocks)
    found = findings_of(model)
    assert {finding.severity for finding in found.values()} == {"info"}
    assert len(found["BN005"].layers) == 6 * blocks + 1  # counts are absent: information
    tensors = {key: value.double().numpy() for key, value in model.state_dict().items()}
    variances = {key: v for key, v in tensors.items() if key.endswith("running_var")}
    dead = sum(int((v < 1e-5).sum()) for v in variances.values())
    assert (found["BN012"].evidence["channels"] if "BN012" in found else 0) == dead
    gammas = np.concatenate([tensors[k.replace("running_var", "weight")] for k in variances])
    near = int((np.abs(gammas) < 1e-3 * np.median(np.abs(gammas))).sum())
    assert found["BN013"].evidence["channels"] == near


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_a_fresh_torchvision_model_was_never_updated_and_nothing_else(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None)
    found = findings_of(model)
    assert set(found) == {"BN004"}
    assert len(found["BN004"].layers) == len(state_of(model).layers)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_a_torchvision_model_of_few_steps_is_only_cold(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=3).train()
    for _ in range(3):
        model(torch.randn(4, 3, 64, 64)).sum().backward()
    found = findings_of(model)
    assert {code for code, finding in found.items() if finding.severity != "info"} == {"BN007"}


def test_every_finding_is_plain_data_and_a_line_of_text() -> None:
    broken = train(Net(eps=1e-12), 3, scale=3000.0)
    broken.b.bn.running_var[0] = torch.nan
    broken.c.bn.running_var[1] = -1.0
    broken.a.bn.half()
    broken.a.bn.momentum = 0.99
    with torch.no_grad():
        broken.c.bn.weight.zero_()
    found = findings_of(broken)
    assert len(found) >= 6
    for finding in found.values():
        json.dumps(finding.evidence, allow_nan=False)
        for text in (finding.sentence, finding.remedy, finding.source):
            assert text
            assert "\n" not in text
