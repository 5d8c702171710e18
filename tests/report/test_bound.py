"""The line that says what bounded a run: its words, its shares, its advice."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import made_up
import pytest
from rich.console import Console

from bnaudit.errors import InputError
from bnaudit.report.bound import bound
from bnaudit.report.recalibration import print_recalibrated
from bnaudit.report.terminal import print_audit
from bnaudit.results import Audit, Decision, Recalibrated, RunTime, Spent

SLOW_LOADER = Spent(data=29.11, forward=8.2, moments=2.87, rest=0.82)


def one(spent: Spent) -> RunTime:
    return RunTime.of([spent], 2000)


def printed(result: Audit | Recalibrated, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, color_system=None)
    if isinstance(result, Audit):
        print_audit(result, console)
    else:
        print_recalibrated(result, console)
    return file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_largest_share_is_what_bounds_a_run() -> None:
    assert bound(one(SLOW_LOADER), "cpu", "float32") == (
        "bounded by data: data 71%, forward 20%, moments 7%, rest 2% of 41 s; more --workers, or "
        "cores for them, would help"
    )


@pytest.mark.parametrize(
    ("spent", "device", "dtype", "begins", "advice"),
    [
        (Spent(forward=20, data=10), "cpu", "float32", "forward: data 33%", "--device cuda"),
        (Spent(forward=20), "cuda:0 (H200)", "float32", "forward: data 0%", "--dtype bf16"),
        (Spent(forward=20), "cuda:0 (H200)", "bfloat16", "forward", "more GPUs (torchrun)"),
        (Spent(data=20), "cuda:0 (H200)", "bfloat16", "data", "--decode gpu"),
        (Spent(moments=20), "cpu", "float32", "moments", "a larger --batch-size would"),
        (
            Spent(rest=20),
            "cpu",
            "float32",
            "the rest",
            "checks of the data, intervals and findings",
        ),
        (Spent(), "cpu", "float32", "the rest: data 0%", "of 0.0 s"),
    ],
)
def test_the_advice_is_about_what_bounds_the_run(
    spent: Spent, device: str, dtype: str, begins: str, advice: str
) -> None:
    line = bound(one(spent), device, dtype)
    assert line.startswith(f"bounded by {begins}")
    assert advice in line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.42, "0.4 s"), (9.96, "10 s"), (599, "599 s"), (4000, "67 min"), (50_000, "13.9 h")],
)
def test_the_time_is_said_in_the_unit_that_suits_it(seconds: float, said: str) -> None:
    assert f" of {said};" in bound(one(Spent(data=seconds)), "cpu", "float32") + ";"


def test_ranks_that_are_alike_are_told_by_their_mean() -> None:
    ranks = [Spent(data=1, forward=8, collectives=1), Spent(data=3, forward=6, waiting=1)]
    assert bound(RunTime.of(ranks, 10), "cpu", "float32") == (
        "bounded by forward: data 20%, forward 70%, moments 0%, collectives 5%, waiting 5%, rest "
        "0% of 10 s on 2 ranks; a GPU (--device cuda) or fewer --samples would help"
    )


def test_the_rank_that_keeps_the_others_waiting_is_named_with_what_it_does() -> None:
    waits = Spent(data=1, forward=2, waiting=7)
    ranks = [waits, waits, Spent(data=8, forward=2), waits]
    assert bound(RunTime.of(ranks, 10), "cpu", "float32") == (
        "bounded by data on rank 2: data 28%, forward 20%, moments 0%, collectives 0%, waiting "
        "52%, rest 0% of 10 s on 4 ranks; the others wait for rank 2: data 80% there; more "
        "--workers, or cores for them, would help"
    )


def test_ranks_that_wait_for_each_other_in_turn_are_bounded_by_waiting() -> None:
    line = bound(RunTime.of([Spent(forward=4, waiting=6)] * 2, 10), "cpu", "float32")
    assert line.startswith("bounded by waiting for other ranks: ")
    assert line.endswith("waiting 60%, rest 0% of 10 s on 2 ranks; ranks of equal speed would help")


def test_a_run_of_a_second_gets_no_advice() -> None:
    line = bound(one(Spent(forward=0.6, data=0.3)), "cpu", "float32")
    assert line == "bounded by forward: data 33%, forward 67%, moments 0%, rest 0% of 0.9 s"


def test_shares_add_up_to_one() -> None:
    assert SLOW_LOADER.shares.whole == pytest.approx(1)
    assert Spent().shares.whole == 1


@pytest.mark.parametrize("width", [80, 60])
def test_measure_and_recalibrate_print_the_line(width: int) -> None:
    run = one(SLOW_LOADER)
    recalibrated = made_up.recalibrated(Decision("gain", accept=True, sentence="Accepted."))
    for result in (made_up.audit(9), recalibrated):
        assert "bounded by" not in printed(result, width)  # of a result that was not timed
        out = printed(replace(result, run_time=run), width)
        assert f"time {bound(run, 'cpu', 'float32')}" in words(out)
        assert max(map(len, out.splitlines())) <= width


def test_the_time_stands_in_the_document_and_is_read_back() -> None:
    audit = replace(made_up.audit(3), run_time=RunTime.of([SLOW_LOADER, Spent(data=41)], 2000))
    document = json.loads(audit.to_json())
    assert document["run_time"]["wall_seconds"] == 41
    assert document["run_time"]["samples_per_second"] == pytest.approx(2000 / 41)
    assert document["run_time"]["seconds"]["forward"] == pytest.approx(4.1)
    assert [rank["data"] for rank in document["run_time"]["ranks"]] == [29.11, 41]
    assert Audit.from_json(audit.to_json()).run_time == audit.run_time


def test_an_older_document_has_no_time() -> None:
    document = json.loads(made_up.audit(3).to_json())
    del document["run_time"]
    assert Audit.from_json(json.dumps(document)).run_time is None


def test_a_time_that_is_no_time_is_refused() -> None:
    document = json.loads(replace(made_up.audit(3), run_time=one(SLOW_LOADER)).to_json())
    document["run_time"]["seconds"]["data"] = "long"
    with pytest.raises(InputError, match=r"run_time\.seconds\.data"):
        Audit.from_json(json.dumps(document))


def test_results_that_differ_in_their_time_alone_are_equal() -> None:
    audit = made_up.audit(3)
    assert replace(audit, run_time=one(SLOW_LOADER)) == audit
