"""The options of a run are repeated in the commands of its findings, as they have to be written."""

from __future__ import annotations

from pathlib import Path

from bnaudit.config import Settings
from bnaudit.findings.commands import recalibrate_of
from bnaudit.targets.factories import parse_args
from bnaudit.verbs.request import request_of


def test_everything_that_names_model_and_data_is_repeated() -> None:
    request = request_of(
        Settings(
            checkpoint=Path("a.pt"),
            model="nets.py:net",
            model_arg={"width": 4, "kind": "10", "deep": True},
            trust_pickle=True,
            data="npz:d.npz",
            data_arg={"split": "test"},
            train_data="npz:t.npz",
            transform="imagenet",
            device="cpu",
        )
    )
    assert request is not None
    assert request.checkpoint == "a.pt"
    assert request.model[:2] == ("--model", "nets.py:net")
    assert "--trust-pickle" in request.model
    assert request.data == ("--data", "npz:d.npz", "--data-arg", "split=test")
    assert request.train_data == ("--data", "npz:t.npz")
    assert request.how == ("--transform", "imagenet", "--device", "cpu")


def test_arguments_are_read_as_they_were() -> None:
    given = {"width": 4, "kind": "10", "deep": True, "rate": 1e-3, "name": "resnet", "none": None}
    request = request_of(Settings(checkpoint=Path("a.pt"), model="m:f", model_arg=given))
    assert request is not None
    pairs = [word for word in request.model if "=" in word]
    assert parse_args(pairs, option="--model-arg") == given


def test_what_has_its_default_is_left_out() -> None:
    request = request_of(Settings(checkpoint=Path("a.pt"), model="m:f"))
    assert request is not None
    assert (request.model, request.data, request.how) == (("--model", "m:f"), (), ())
    assert request_of(Settings(model="m:f")) is None


def test_the_command_that_recalibrates_is_made_of_a_request_alone() -> None:
    settings = Settings(checkpoint=Path("a b.pt"), model="m:f", data="npz:d.npz", transform="none")
    assert recalibrate_of(request_of(settings)) == (
        "bnaudit recalibrate 'a b.pt' --model m:f --data npz:d.npz --transform none"
    )
    assert recalibrate_of(None).startswith("bnaudit.recalibrate(")
