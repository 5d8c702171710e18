"""What inspect prints: everything fits, the suspicious layers stay, strips show the spread."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import bnaudit
from bnaudit.findings.policy import Policy
from bnaudit.report.inspection import print_inspection
from bnaudit.report.terminal import BARS
from bnaudit.results.inspection import Inspection


def network(blocks: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 1)]
    for _ in range(blocks):
        layers += [nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)]
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for _ in range(60):
            net(3 * torch.randn(8, 3, 4, 4))
    return net


def inspected(content: object, folder: Path) -> Inspection:
    torch.save(content, folder / "a.pt")
    return bnaudit.inspect(folder / "a.pt")


def printed(inspection: Inspection, width: int = 80, *, all_layers: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_inspection(inspection, console, all_layers=all_layers)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_cut_off(tmp_path: Path, width: int) -> None:
    net = network(4)
    broken = net.state_dict()
    broken["1.running_mean"][0] = float("nan")
    broken["4.running_var"] *= 1e30
    broken["7.running_var"] *= 1e-30
    broken["10.running_mean"] *= -1e30
    long = {f"module.backbone.stage.{name}": value for name, value in broken.items()}
    inspection = inspected({"state_dict": long, "ema": net.state_dict()}, tmp_path)
    text = printed(inspection, width)
    assert "…" not in text
    lines = text.splitlines()
    # Commands to copy are never broken into lines.
    assert max(len(line) for line in lines if "bnaudit recalibrate" not in line) <= width
    for name in (layer.name for layer in inspection.layers):
        assert name in text.replace("\n", "") or name[: width // 4] in text


def test_the_table_has_the_figures_of_each_layer(tmp_path: Path) -> None:
    net = network(2)
    state = net.state_dict()
    state["1.running_var"][:2] = 1e-7
    state["1.running_mean"][3] = float("inf")
    row = next(
        line for line in printed(inspected(state, tmp_path)).splitlines() if line[:2] == "1 "
    )
    cells = row.split()
    assert cells[:3] == ["1", "8", "60"]
    assert cells[-2:] == ["2", "1"]
    assert cells[5] == "1e-7"


def test_the_column_of_broken_channels_is_there_where_it_is_needed(tmp_path: Path) -> None:
    state = network(2).state_dict()
    assert "bad" not in printed(inspected(state, tmp_path))
    state["1.running_mean"][0] = float("nan")
    assert "bad: channels with NaN or infinity" in " ".join(
        printed(inspected(state, tmp_path)).split()
    )


@pytest.mark.parametrize(("multiple", "said"), [(1, "below eps"), (30, "below 30 times eps")])
def test_the_legend_says_below_what_a_channel_is_called_dead(
    tmp_path: Path, multiple: float, said: str
) -> None:
    torch.save(network(2).state_dict(), tmp_path / "a.pt")
    policy = Policy({"BN012": {"multiple_of_eps": multiple}})
    inspection = bnaudit.inspect(tmp_path / "a.pt", policy=policy)
    again = Inspection.from_json(inspection.to_json())
    assert again.multiple_of_eps == multiple
    assert f"dead: channels whose variance is {said}" in " ".join(printed(again).split())


def test_a_long_table_keeps_the_suspicious_layers(tmp_path: Path) -> None:
    state = network(30).state_dict()
    state["61.running_var"][0] = -1.0
    inspection = inspected(state, tmp_path)
    text = printed(inspection)
    rows = [line.split()[0] for line in text.splitlines() if line[:1].isdigit()]
    assert rows.count("61") == 2  # in figures and in a strip
    assert len(rows) == 24
    assert "of 30 (--all shows all)" in " ".join(text.split())
    every = printed(inspection, all_layers=True)
    assert len([line for line in every.splitlines() if line[:1].isdigit()]) == 60


def test_strips_show_how_many_channels_lie_where(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(8).state_dict()
    state["running_var"] = torch.tensor([0.25, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5])
    state["running_mean"] = 2 * state["running_var"].sqrt()
    lines = printed(inspected({f"bn.{k}": v for k, v in state.items()}, tmp_path)).splitlines()
    header = next(line for line in lines if "log₁₀ var" in line)
    strip = next(line for line in lines if line.startswith("bn ") and BARS[-1] in line)
    assert "-0.625 to 0.25" in header
    name, variances, means = strip.split()
    assert name == "bn"
    assert variances == BARS[1] + "·····" + BARS[-1]
    assert means == BARS[-1]


def test_strips_have_coarser_bins_where_the_terminal_is_narrow(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(64).state_dict()
    state["running_var"] = torch.logspace(-8, 4, 64)
    state["running_mean"] = torch.linspace(-4, 4, 64) * state["running_var"].sqrt()
    inspection = inspected({f"bn.{k}": v for k, v in state.items()}, tmp_path)
    for width, longest in ((200, 48), (40, 15)):
        lines = printed(inspection, width).splitlines()
        strip = next(line for line in lines if line.startswith("bn ") and BARS[-1] in line)
        variances, means = strip.split()[1:]
        assert longest // 2 <= len(variances) <= longest
        assert longest // 2 <= len(means) <= longest
        assert len(strip) <= width


def test_a_file_without_layers_is_told_in_one_screen(tmp_path: Path) -> None:
    text = printed(inspected(nn.Linear(2, 2).state_dict(), tmp_path))
    assert "BN layers   none" in text
    assert "nothing to inspect" in " ".join(text.split())
    assert "Findings: none" in text


def test_what_a_pickled_model_tells_is_shown(tmp_path: Path) -> None:
    inspection = inspected(network(1), tmp_path)
    text = printed(inspection, 200)
    assert "1 (BatchNorm2d)" in text
    assert "1e-05 " in text
    assert "1e-05?" not in text
    assert "1e-05?" in printed(inspected(network(1).state_dict(), tmp_path), 200)


def test_names_are_never_read_as_markup(tmp_path: Path) -> None:
    state = {f"[red]x[/].{k}": v for k, v in nn.BatchNorm1d(2).state_dict().items()}
    inspection = inspected(state, tmp_path)
    assert "[red]x[/]" in printed(inspection)
    renamed = replace(inspection, notes=("[bold]a note[/]",))
    assert "[bold]a note[/]" in printed(renamed)
