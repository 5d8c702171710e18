"""How a comparison of domains is shown: every form fits 80 columns, and says what counts."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

from domain_models import Levels, as_data, digits, digits_net
from rich.console import Console

from bnaudit.report.domains import print_domains
from bnaudit.report.domains_files import write_domains
from bnaudit.results.domains import Domains
from bnaudit.verbs.domains import domains


@cache
def many(labelled: bool, cameras: int = 7) -> Domains:
    """Cameras, each more hazy than the one before; the fourth has a long name."""
    images, labels = digits("train")
    data = {}
    for number in range(cameras):
        part = slice(number * 24, (number + 1) * 24)
        seen = (1 - 0.09 * number) * images[part] + 0.06 * number
        name = "camera_of_the_north_side_of_the_building" if number == 3 else f"camera{number}"
        data[name] = as_data(seen, labels[part]) if labelled else as_data(seen)
    return domains(digits_net(), data)


def printed(result: Domains, width: int = 80) -> str:
    stream = io.StringIO()
    print_domains(result, Console(file=stream, width=width))
    return stream.getvalue()


def test_many_domains_have_a_row_each_in_eighty_columns() -> None:
    text = printed(many(labelled=True))
    assert max(map(len, text.splitlines())) <= 80
    accuracy = text[text.index("accuracy, %") : text.index("loss, nats")]
    assert "data of" in accuracy
    row = next(line for line in accuracy.splitlines() if line.startswith("camera6"))
    result = many(labelled=True)
    for whose in ("checkpoint", "pooled", "camera6"):
        figure = result.cell(whose, "camera6").scores.accuracy
        assert figure is not None
        assert f"{100 * figure.value:.1f}" in row


def test_without_labels_agreement_and_kl_are_shown_and_no_accuracy() -> None:
    text = printed(many(labelled=False, cameras=4))
    assert max(map(len, text.splitlines())) <= 80
    assert "accuracy, %" not in text
    assert "agreement with the checkpoint, %" in text
    assert "KL from the checkpoint, nats" in text
    assert text.startswith("Without labels it cannot be known")


def test_names_out_of_a_document_reach_no_terminal_as_commands() -> None:
    result = many(labelled=True)
    bad = "\x1b[31mred\n"
    domain = replace(result.domains[0], name=bad)
    cells = tuple(
        replace(
            cell,
            statistics=bad if cell.statistics == "camera0" else cell.statistics,
            domain=bad if cell.domain == "camera0" else cell.domain,
        )
        for cell in result.cells
    )
    text = printed(replace(result, domains=(domain, *result.domains[1:]), cells=cells))
    assert "\x1b" not in text


def test_the_files_of_an_earlier_run_do_not_outlive_it(tmp_path: Path) -> None:
    images, _ = digits("test")
    model = Levels()
    alone = domains(model, {"all": as_data(images[:96])})
    write_domains(many(labelled=True), tmp_path)
    assert (tmp_path / "domains_by_layer.png").stat().st_size > 5000
    written = write_domains(alone, tmp_path, plots=False)
    assert {path.name for path in tmp_path.iterdir()} == {"domains.json", "domains.csv"}
    assert {path.name for path in written} == {"domains.json", "domains.csv"}
    assert "all" in printed(alone)
