"""A network over graphs, with torch-geometric's BatchNorm; skips itself where that is not there."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from layer_oracle import ROUNDING, assert_measured, assert_only_statistics_became_exact, trained

import bnaudit
from bnaudit.cli import main
from bnaudit.targets.user_files import import_file

SIZES = (3, 3, 4, 5, 6, 7, 8, 9, 11, 12) * 4 + (5,)
"""Nodes of each graph."""

MODEL = """\
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data
from torch_geometric.nn import BatchNorm, GINConv, global_add_pool


class GraphNet(nn.Module):
    def __init__(self):
        super().__init__()
        inner = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8))
        self.first, self.first_norm = GINConv(inner), BatchNorm(8)
        self.second, self.second_norm = GINConv(nn.Linear(8, 8)), BatchNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x, edges, of_graph):
        x = self.first_norm(self.first(x, edges)).relu()
        x = self.second_norm(self.second(x, edges)).relu()
        return self.head(global_add_pool(x, of_graph))


def graph(nodes, drawn):
    x = torch.randn(nodes, 4, generator=drawn).exp()
    edges = torch.randint(nodes, (2, 3 * nodes), generator=drawn)
    return Data(x=x, edge_index=edges, y=torch.randint(3, (1,), generator=drawn))
"""

WRITTEN_BY_THE_USER = """

def graphs_and_labels(graphs):
    return graphs, torch.cat([graph.y for graph in graphs])


def loader(sizes={sizes}):
    drawn = torch.Generator().manual_seed(0)
    graphs = [graph(nodes, drawn) for nodes in sizes]
    return DataLoader(graphs, batch_size=12, collate_fn=graphs_and_labels)


def forward(model, batch):
    graphs = Batch.from_data_list(batch[0])
    return model(graphs.x, graphs.edge_index, graphs.batch)
"""
"""The list of graphs says how many samples there are, and can be cut; they become one when they go
into the model."""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """graphs.py in the current folder."""
    pytest.importorskip("torch_geometric")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "graphs.py"
    file.write_text(MODEL + WRITTEN_BY_THE_USER.format(sizes=SIZES))
    return import_file(file)


def test_a_network_over_graphs_needs_a_list_of_graphs_and_a_forward(written: ModuleType) -> None:
    batches, forward = list(written.loader()), written.forward
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = trained(written.GraphNet(), batches[:3], forward)
    before = copy.deepcopy(model.state_dict())

    audit = bnaudit.measure(model, written.loader(), forward=forward)
    result = bnaudit.recalibrate(model, written.loader(), method="exact", forward=forward)

    assert_measured(audit, before, model, batches, forward)
    assert [layer.name for layer in audit.layers] == [
        "first.nn.1",
        "first_norm.module",
        "second_norm.module",
    ]
    assert all(layer.count == sum(SIZES) for layer in audit.layers)
    assert audit.data is not None
    assert audit.data.samples == len(SIZES)
    assert audit.network is not None
    assert audit.network.deployed is not None
    assert result.report.residual is not None
    assert result.report.residual <= ROUNDING
    assert_only_statistics_became_exact(before, model, batches, forward)


def test_the_command_measures_graphs_by_the_functions_of_a_file(
    written: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = trained(written.GraphNet(), list(written.loader())[:3], written.forward)
    torch.save(model.state_dict(), "graphs.pt")
    said = "measure graphs.pt --model graphs.py:GraphNet --data graphs.py:loader"
    argv = ["bnaudit", *said.split(), "--forward", "graphs.py:forward", "--json"]
    monkeypatch.setattr(sys, "argv", argv)

    with pytest.raises(SystemExit) as ended:
        main.run()

    assert ended.value.code == 0
    document = json.loads(capfd.readouterr().out)
    audit = bnaudit.measure(model, written.loader(), forward=written.forward)
    found = {layer["name"]: layer["total_shift"]["plain"] for layer in document["layers"]}
    assert found == {
        layer.name: pytest.approx(layer.total_shift.plain, rel=1e-6)
        for layer in audit.audited
        if layer.total_shift is not None
    }


def test_a_loader_of_torch_geometric_needs_a_forward_alone(written: ModuleType) -> None:
    """Its batches count by graphs, can be cut, and are told apart by features and edges."""
    from torch_geometric.loader import DataLoader as OfGraphs

    graphs = written.loader().dataset
    batches = list(OfGraphs(graphs, batch_size=12))

    def forward(model: Any, batch: Any) -> Any:
        return model(batch.x, batch.edge_index, batch.batch)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = trained(written.GraphNet(), batches[:3], forward)
    state = copy.deepcopy(model.state_dict())
    audit = bnaudit.measure(model, OfGraphs(graphs, batch_size=12), forward=forward)
    assert_measured(audit, state, model, batches, forward)
    assert audit.data is not None
    assert audit.data.samples == len(SIZES)
    assert audit.network is not None
    assert audit.network.deployed is not None
    calibration, heldout = OfGraphs(graphs[:30], 10), OfGraphs(graphs[25:], 8)
    result = bnaudit.recalibrate(model, calibration, verify=heldout, forward=forward)
    assert result.report.verification is not None
    assert result.report.verification.overlap == 5
    assert result.report.verification.data.samples == len(SIZES) - 30
