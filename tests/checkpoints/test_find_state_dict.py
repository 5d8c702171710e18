"""Where the weights stand in what a training script saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnaudit.checkpoints.layout import StateDict, find_state_dict
from bnaudit.checkpoints.read import Checkpoint
from bnaudit.errors import InputError


def weights(value: float = 0.0) -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.full((2, 2), value), "bn.num_batches_tracked": torch.tensor(1)}


def find(content: object, key: str | None = None) -> StateDict:
    return find_state_dict(Checkpoint(Path("a.pt"), "zip", "", content), key=key)


def refusal(content: object, key: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        find(content, key)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def adam() -> dict[str, Any]:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def test_a_state_dict_at_the_top_level_wins() -> None:
    found = find({**weights(), "_extra_state": {"a": torch.ones(2)}, "epoch": 3})
    assert found.key == ""
    assert list(found.tensors) == list(weights())
    assert found.others == ()


@pytest.mark.parametrize(
    "name",
    [
        *("state_dict", "model", "model_state_dict", "module", "net", "network", "weights"),
        *("params", "ema", "model_ema", "state_dict_ema", "something_else"),
    ],
)
def test_a_nested_state_dict_is_found_under_any_name(name: str) -> None:
    found = find({"epoch": 1, "optimizer": adam(), name: weights(), "loss": torch.tensor(1.0)})
    assert found.key == name


def test_a_state_dict_is_found_three_keys_deep_and_in_a_tuple() -> None:
    assert find({"a": {"b": {"c": weights()}}}).key == "a.b.c"
    assert find((weights(), 0.9)).key == "0"


def test_plain_weights_come_before_averaged_ones_and_usual_names_before_others() -> None:
    content = {
        "state_dict_ema": weights(1),
        "teacher": {"model": weights(2)},
        "discriminator": weights(3),
        "model": weights(4),
        "state_dict": weights(5),
    }
    found = find(content)
    assert found.key == "state_dict"
    assert found.others == ("model", "discriminator", "teacher.model", "state_dict_ema")


def test_states_of_optimizers_and_generators_are_never_chosen() -> None:
    shadow = {"exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    content = {
        "optimizer": shadow,
        "optim_state_dict": shadow,
        "opt": {"state": shadow},
        "solver": {"state": {"0": shadow}, "param_groups": []},
        "lr_scheduler": shadow,
        "rng_state": {"cpu": torch.ones(9), "cuda": torch.ones(9)},
        "metrics": {"loss": torch.tensor(1.0)},
    }
    assert "no state dict found" in refusal(content)
    assert find({**content, "zzz": weights()}).others == ()


def test_losses_around_the_weights_are_not_the_weights() -> None:
    content = {"model": weights(), "losses": torch.ones(9), "accuracies": torch.ones(9)}
    assert find(content).key == "model"


def test_a_key_overrides_the_choice() -> None:
    content = {"model": weights(1), "my.ema": {"inner": weights(2)}}
    found = find(content, "my.ema.inner")
    assert found.key == "my.ema.inner"
    assert found.tensors["conv.weight"].sum() == 8
    assert found.others == ("model",)
    assert find({**weights(), "ema": weights(2)}, "ema").tensors["conv.weight"].sum() == 8


def test_an_unknown_key_is_answered_with_the_candidates() -> None:
    message = refusal({"model": weights(), "ema": weights()}, "modle")
    assert "'modle'" in message
    assert "model (2 entries), ema (2 entries)" in message
    assert "no state dict at 'epoch'" in refusal({"model": weights(), "epoch": 3}, "epoch")


def test_a_checkpoint_without_weights_is_answered_with_what_it_holds() -> None:
    content = {f"k{i}\n": i for i in range(20)}
    assert "its top-level keys are k0  (int), k1  (int)" in refusal(content)
    assert "and 12 more" in refusal(content)
    assert "a list" in refusal([])
    assert "an empty dict" in refusal({})


def test_a_pickled_module_stands_for_its_state_dict() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    assert list(find(model).tensors) == list(model.state_dict())
    found = find({"model": model, "epoch": 1})
    assert found.key == "model"
    assert found.metadata is not None
    assert not any(value.requires_grad for value in found.tensors.values())


def test_keys_that_are_no_strings_do_not_crash() -> None:
    assert find({0: {"a": torch.ones(2)}, None: 1, "model": {**weights(), 7: 1}}).key == "model"
