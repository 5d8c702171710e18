"""A run of one claim on tiny recipes and the page that it writes; the page of the repository."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reproduce import claim_ghost
from reproduce.catalogue import CLAIMS
from reproduce.claim import outcomes_of, verdict_of
from reproduce.page import Circumstances, p_text, write_page
from reproduce.runs import run_seed, saved

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
SEEDS = range(300, 303)
CLAIM = claim_ghost.CLAIM
ABOUT = Circumstances("make reproduce", "2026-01-01", 120.0, 90.0, 2, {"PyTorch": "2"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_ghost, "RECIPE", replace(claim_ghost.RECIPE, epochs=1))
        # Of no interest here, and most of the work where one epoch has taught a network little.
        patch.setattr("bnaudit.verbs.measurement.try_preprocessing", lambda *_: None)
        for seed in SEEDS:
            run_seed(seed, [CLAIM.key], folder)
    return folder


@pytest.fixture
def page(folder, tmp_path):
    runs = saved(CLAIM, len(SEEDS), SEEDS[0], folder)
    write_page(tmp_path / "PAGE.md", [(CLAIM, runs)], ABOUT)
    return (tmp_path / "PAGE.md").read_text(), [run.figures for run in runs]


def test_figures_are_kept_and_read_back_as_they_were(folder):
    runs = saved(CLAIM, len(SEEDS), SEEDS[0], folder)
    assert [run.seed for run in runs] == list(SEEDS)
    assert all(isinstance(run.figures, claim_ghost.Figures) for run in runs)
    assert all(run.seconds > 0 for run in runs)
    assert saved(CLAIM, 2, SEEDS[0], folder) == runs[:2]
    assert saved(CLAIM, 5, 0, folder) == []


def test_the_page_says_the_verdict_that_follows_from_the_figures(page):
    text, figures = page
    verdict = verdict_of(CLAIM, outcomes_of(CLAIM, figures))
    assert f"**Verdict: {verdict}.**" in text
    assert f"| {verdict} |" in text
    assert "Seeds 300 to 302" in text


def test_the_tables_hold_the_means_and_intervals_of_the_seeds(page):
    text, figures = page
    plain = [100 * one.networks[0].test for one in figures]
    half = 4.3027 * np.std(plain, ddof=1) / np.sqrt(3)
    mean = np.mean(plain)
    assert f"{mean:.1f} ({mean - half:.1f} to {mean + half:.1f})" in text


def test_every_test_has_its_p_value_its_power_and_what_it_would_have_found(page):
    text, figures = page
    for outcome in outcomes_of(CLAIM, figures):
        (line,) = (
            line for line in text.splitlines() if line.startswith(f"| {outcome.hypothesis.key},")
        )
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 11
        assert cells[5:10] == [
            p_text(outcome.test.p_value),
            p_text(outcome.adjusted),
            p_text(outcome.test.sign_flip),
            f"{outcome.test.power:.2f}",
            f"{100 * outcome.test.detectable:.2f} points",
        ]


def test_the_plot_stands_beside_the_page(page, tmp_path):
    assert "](reproduction/h2.png)" in page[0]
    assert (tmp_path / "reproduction" / "h2.png").stat().st_size < 100_000


def test_small_p_values_are_not_rounded_to_zero():
    assert [p_text(p) for p in (0.03141, 0.0004, 3e-9)] == ["0.031", "4e-04", "3e-09"]


def test_the_page_of_the_repository_has_every_claim_with_a_verdict_and_a_plot():
    text = (SAMPLES / "REPRODUCTION.md").read_text()
    verdicts = r"reproduced|not reproduced at this scale(?: \(\d of \d primary hypotheses hold\))?"
    for claim in CLAIMS.values():
        _, _, section = text.partition(f"\n## {claim.key}. {claim.title}\n")
        assert re.match(rf"\n\*\*Verdict: ({verdicts})\.\*\*", section), claim.key
        assert f"{len(claim.hypotheses)} tests, {len(claim.primary)} of them primary" in section
        assert (SAMPLES / "reproduction" / f"{claim.key}.png").is_file()
    plots = list((SAMPLES / "reproduction").glob("*"))
    assert sum(plot.stat().st_size for plot in plots) < 600_000


@pytest.mark.parametrize("key", ["a", "b", "d", "f", "g"])
def test_what_has_to_reproduce_is_reproduced_in_the_page_of_the_repository(key):
    text = (SAMPLES / "REPRODUCTION.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"| [{key}. "))
    assert "| reproduced |" in line
