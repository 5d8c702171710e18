"""Values that cannot be meant are told in one line, before any work."""

from __future__ import annotations

import numpy as np
import pytest
from sweep_inputs import digits, sample_model

import bnaudit
from bnaudit.errors import InputError
from bnaudit.results import Change
from bnaudit.results.sweep import Kind, Sweep
from bnaudit.verbs.change_words import in_nats, in_points
from bnaudit.verbs.sweep_values import checked_draws, checked_values, doubling, parsed_values

WRONG: list[tuple[Kind, str, str]] = [
    ("batch-size", "2,x,8", "--values 2,x,8: 'x' is no number; give mini-batch sizes separated"),
    ("batch-size", "1,2", "1 is no mini-batch size; give a whole number, 2 or more"),
    ("batch-size", "2.5", "2.5 is no mini-batch size"),
    ("batch-size", "2,4,2", "2 stands there twice; give each value once"),
    ("batch-size", "2,,4", "'' is no number"),
    ("batch-size", "", "'' is no number"),
    ("samples", "16,nan", "nan is no number of samples"),
    ("samples", "inf", "inf is no number of samples; give a whole number, 2 or more"),
    ("samples", "a", "give numbers of samples separated by commas, such as 16,64"),
    ("prior", "-1,0", "-1 is no strength of a prior; give a number, 0 or more"),
    ("prior", "inf", "inf is no strength of a prior"),
    ("example-weight", "0,1.2", "1.2 is no weight of an example; give a number from 0 to 1"),
    ("momentum", "0,0.1", "0 is no momentum; give a number above 0, and at most 1"),
    ("momentum", "x", "'x' is no number; give momenta separated by commas"),
]


@pytest.mark.parametrize(("kind", "text", "says"), WRONG)
def test_what_cannot_be_meant_is_refused(kind: Kind, text: str, says: str) -> None:
    with pytest.raises(InputError) as told:
        parsed_values(kind, text)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_values_are_read_in_any_order_and_form() -> None:
    assert parsed_values("batch-size", " 8, 2,32") == (2.0, 8.0, 32.0)
    assert parsed_values("momentum", "1e-3,1") == (0.001, 1.0)
    assert checked_values("prior", [16, 0]) == (0.0, 16.0)
    with pytest.raises(InputError, match="there is none"):
        checked_values("prior", [])
    with pytest.raises(InputError, match="True is no number"):
        checked_values("samples", [True])


def test_numbers_of_numpy_are_numbers() -> None:
    assert checked_values("batch-size", np.arange(2, 5)) == (2.0, 3.0, 4.0)
    assert checked_values("samples", [np.int64(16), 8]) == (8.0, 16.0)
    assert checked_values("momentum", np.float32([0.5, 0.25])) == (0.25, 0.5)
    assert checked_values("prior", (n for n in (0, 8))) == (0.0, 8.0)
    assert checked_draws(np.int64(2)) == 2
    for draws in (0, 2.0, True, "2"):
        with pytest.raises(InputError, match="give a positive number"):
            checked_draws(draws)


def test_what_is_no_number_or_no_list_is_refused_by_every_sweep() -> None:
    data = digits("test", 8)
    for sweep in (
        bnaudit.sweep_batch_size,
        bnaudit.sweep_samples,
        bnaudit.sweep_prior,
        bnaudit.sweep_example_weight,
        bnaudit.sweep_momentum,
    ):
        for values, says in ((["a"], "values a: 'a' is no number"), (2, "values 2: give several")):
            with pytest.raises(InputError, match=says):
                sweep(sample_model("healthy"), data, values=values)


def test_a_sweep_takes_values_of_numpy() -> None:
    data = digits("test", 24)
    sweep = bnaudit.sweep_batch_size(sample_model("healthy"), data, values=np.array([2, 8]))
    assert sweep.values == (2, 8)
    weights = bnaudit.sweep_example_weight(sample_model("healthy"), data, values=np.array([0.5]))
    assert Sweep.from_json(weights.to_json()) == weights


def test_changes_that_round_to_nothing_have_no_sign() -> None:
    assert in_points(Change(0.9, 0.9, -0.0001, -0.012, 0.0001)) == (
        "0.0 points (95% interval -1.2 to 0.0)"
    )
    assert in_nats(Change(0.5, 0.5, -0.0001, -0.01, 0.02)) == (
        "from 0.500 to 0.500 nats (difference 0.000, 95% interval -0.010 to +0.020)"
    )


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (9, (9,)),
        (16, (16,)),
        (100, (16, 32, 64, 100)),
        (130, (16, 32, 64, 130)),
        (1000, (16, 32, 64, 128, 256, 512, 1000)),
    ],
)
def test_numbers_of_samples_double_up_to_all(most: int, expected: tuple[int, ...]) -> None:
    assert doubling(most) == expected
