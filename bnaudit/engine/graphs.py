"""Batches of graphs as torch-geometric makes them, known by what they can do.

Its `Data` is a graph, with any tensors as attributes; its `Batch` is many of them as one graph that
falls apart. Nothing here imports it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor


def is_graph(data: Any) -> bool:
    """Whether `data` is a graph, or a batch of graphs."""
    kind = type(data)
    return all(hasattr(kind, name) for name in ("num_nodes", "apply", "to_dict"))


def is_batch_of_graphs(data: Any) -> bool:
    """Whether `data` are graphs that are one: a sample is a graph, and not a node."""
    return is_graph(data) and hasattr(type(data), "num_graphs")


def map_graph(function: Callable[[Tensor], Tensor], data: Any) -> Any:
    """The same graph with `function` applied to every tensor; `apply` itself works in place."""
    return copy.copy(data).apply(function)


def cut_graphs(items: Callable[[list[Any]], list[Any]], data: Any) -> Any:
    """The graphs of a batch that `items` chooses, as a batch."""
    return data.from_data_list(items(data.to_data_list()))


def edges_in(data: Any) -> list[Tensor]:
    """The edges (2, E) of a graph, or of each graph of a list; empty where there is none."""
    graphs = data if isinstance(data, (list, tuple)) else [data]
    found = [getattr(graph, "edge_index", None) for graph in graphs if is_graph(graph)]
    return [edges for edges in found if isinstance(edges, Tensor)]
