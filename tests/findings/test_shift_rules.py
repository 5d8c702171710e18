"""BN101 to BN108: what an Audit says of the estimates, on networks whose fault is known."""

from __future__ import annotations

import copy

import pytest
import torch
from audits import chain, codes, digits, digits_net, exactly_calibrated, gaussian, measured
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit

X = gaussian(400, 32)


def scaled_variances(model: nn.Module, factor: float, *names: str) -> nn.Module:
    """The running variances of the layers `names` (all by default), times `factor`."""
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d) and (not names or name in names):
            assert module.running_var is not None
            module.running_var *= factor
    return model


@pytest.fixture(scope="module")
def calibrated() -> nn.Module:
    return exactly_calibrated(chain(6), X)


@pytest.fixture
def exact(calibrated: nn.Module) -> nn.Module:
    return copy.deepcopy(calibrated)


def test_exact_statistics_are_not_shifted(exact: nn.Module) -> None:
    assert [code for code in measured(exact, X) if code.startswith("BN1")] == []


def test_a_layer_whose_variance_is_wrong_is_named(exact: nn.Module) -> None:
    found = measured(scaled_variances(exact, 1.6, "16"), X)
    assert found["BN101"].layers == ("16",)
    assert found["BN101"].severity == "warning"
    assert found["BN101"].command is not None


def test_the_threshold_of_the_shift_is_a_setting(exact: nn.Module) -> None:
    model = scaled_variances(exact, 1.6, "16")
    policy = bnaudit.Policy(thresholds={"BN101": {"shift": 0.9}})
    audit = bnaudit.measure(model, TensorDataset(X), policy=policy)
    assert "BN101" not in codes(audit)
    assert audit.verdict is not None
    assert audit.verdict.level == "healthy"


def test_a_small_error_in_every_layer_accumulates(exact: nn.Module) -> None:
    found = measured(scaled_variances(exact, 1.25), X)
    assert found["BN102"].layers == ("13", "16")
    assert (
        found["BN102"].evidence["inherited_last_third"] > found["BN102"].evidence["own_last_third"]
    )


def test_one_wrong_layer_does_not_accumulate_but_is_inherited(exact: nn.Module) -> None:
    found = measured(scaled_variances(exact, 3.0, "1"), X)
    assert "BN102" not in found
    assert found["BN103"].evidence["causes"] == ["1"]
    assert "1" not in found["BN103"].layers
    assert "data" in found["BN103"].remedy


def test_a_wrong_last_layer_is_inherited_by_none(exact: nn.Module) -> None:
    assert "BN103" not in measured(scaled_variances(exact, 3.0, "16"), X)


def in_train_mode(model: nn.Module, batch: int, batches: int) -> nn.Module:
    """The model with statistics as PyTorch's train mode averages them over mini-batches."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None  # a plain average: an EMA's noise is not the point
    with torch.no_grad():
        for part in gaussian(batch * batches, 64).split(batch):
            model(part)
    return model


def test_a_chain_of_layers_tells_the_small_batch_it_was_trained_with() -> None:
    model = in_train_mode(nn.Sequential(*(nn.BatchNorm1d(64) for _ in range(6))), 16, 300)
    found = measured(model, gaussian(1000, 64, seed=5))["BN104"]
    assert found.layers == ("1", "2", "3", "4", "5")  # the first sees no biased upstream
    assert found.evidence["batch_size"] == pytest.approx(16, rel=0.1)


def test_unbiased_variances_are_told_behind_weights_too() -> None:
    model = in_train_mode(chain(4, width=64), 16, 300)
    found = measured(model, gaussian(1000, 64, seed=5), attribute="all")["BN104"]
    assert set(found.layers) <= {"4", "7", "10"}
    assert 8 < found.evidence["batch_size"] < 32


def test_large_batches_have_no_bessel_bias() -> None:
    model = in_train_mode(chain(4, width=64), 256, 30)
    assert "BN104" not in measured(model, gaussian(1000, 64, seed=5), attribute="all")


def plain_stack(seed: int) -> nn.Module:
    """Six convolutions with BatchNorm, trained on digits for two epochs."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 1
    for _ in range(6):
        layers += [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        channels = 16
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    x, y = digits("train")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        for index in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def parents() -> tuple[nn.Module, nn.Module]:
    return plain_stack(0), plain_stack(1)


def test_merged_weights_collapse_the_variance(parents: tuple[nn.Module, nn.Module]) -> None:
    one, other = parents
    merged = copy.deepcopy(one)
    mixed = {
        name: (value + other.state_dict()[name]) / 2 if value.is_floating_point() else value
        for name, value in one.state_dict().items()
    }
    merged.load_state_dict(mixed)
    found = measured(merged, *digits("test"))
    assert len(found["BN105"].layers) == 6
    assert found["BN105"].evidence["ratio"]["16"] > found["BN105"].evidence["ratio"]["1"]


def test_a_parent_has_no_collapsed_variance(parents: tuple[nn.Module, nn.Module]) -> None:
    assert "BN105" not in measured(parents[0], *digits("test"))


def test_data_of_low_contrast_are_no_collapsed_variance() -> None:
    x, y = digits("test")
    assert "BN105" not in measured(digits_net("healthy"), 0.5 * x + 0.25, y)


def test_a_shift_in_one_channel_is_told_as_such(exact: nn.Module) -> None:
    layer = exact.get_submodule("16")
    assert isinstance(layer.running_var, Tensor)
    layer.running_var[3] *= 0.05
    found = measured(exact, X)
    assert found["BN106"].layers == ("16",)
    assert found["BN106"].evidence["16"]["worst_channel"] == 3


def test_a_shift_in_all_channels_is_not_one_of_a_few(exact: nn.Module) -> None:
    assert "BN106" not in measured(scaled_variances(exact, 3.0), X)


def test_forty_samples_are_too_few() -> None:
    net, (x, y) = digits_net("healthy"), digits("test")
    assert measured(net, x[:40], y[:40])["BN107"].severity == "info"
    assert "BN107" not in measured(net, x, y)


def test_estimates_that_are_wrong_on_the_training_data_are_the_estimates_fault(
    exact: nn.Module,
) -> None:
    there = TensorDataset(gaussian(400, 32, seed=7))
    found = measured(scaled_variances(exact, 2.0), X, train_data=there)
    assert "did not move" in found["BN108"].sentence
    assert "BN302" not in found


def test_other_data_are_the_datas_fault(exact: nn.Module) -> None:
    there = TensorDataset(gaussian(400, 32, seed=7))
    found = measured(exact, 2 * X + 1, train_data=there)
    assert "the estimates fit those" in found["BN302"].sentence
    assert "BN108" not in found
    assert "BN101" in found


def test_both_can_be_at_fault(exact: nn.Module) -> None:
    there = TensorDataset(gaussian(400, 32, seed=7))
    found = measured(scaled_variances(exact, 2.0), 2 * X + 1, train_data=there)
    assert "moved as well" in found["BN108"].sentence
    assert "wrong as well" in found["BN302"].sentence


def test_the_same_distribution_has_not_moved(exact: nn.Module) -> None:
    found = measured(exact, X, train_data=TensorDataset(gaussian(400, 32, seed=7)))
    assert not {"BN108", "BN302"} & found.keys()


def test_an_average_that_has_not_warmed_up_is_told_by_the_data() -> None:
    found = measured(digits_net("lagging_ema"), *digits("test"))["BN109"]
    assert len(found.layers) == 9
    assert found.evidence["bn"]["share"] == pytest.approx(0.9995**420, abs=0.02)


@pytest.mark.parametrize("name", [pytest.param("averaged", marks=pytest.mark.slow), "small_batch"])
def test_other_wrong_estimates_are_not_pulled_toward_the_initial_values(name: str) -> None:
    assert "BN109" not in measured(digits_net(name), *digits("test"))
