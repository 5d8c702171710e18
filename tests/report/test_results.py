"""The Audit as a document, as a table, as arrays and as HTML."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.errors import InputError
from bnaudit.report.files import read_results, remove_results, result_files, write_results
from bnaudit.results import Audit, ChannelTable, Verdict


@pytest.fixture(scope="module")
def audit() -> Audit:
    """Measured: two layers, one of them called twice, one that is not reached, labels."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.twice = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
            self.unused = nn.BatchNorm1d(3)
            self.alias = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.twice(self.twice(self.first(x)))
            return y

    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(200, 4, generator=generator), torch.arange(200) % 4)
    return bnaudit.measure(Net(), data, batch_size=20)


def same(one: ChannelTable, other: ChannelTable) -> None:
    for name in (field.name for field in fields(ChannelTable)):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_an_audit_comes_back_from_json_as_it_was(audit: Audit) -> None:
    plain = replace(audit, channels=None)
    assert Audit.from_json(audit.to_json()) == plain
    assert Audit.from_json(audit.to_json()).to_json() == audit.to_json()
    assert {layer.status for layer in plain.layers} == {"audited", "never-called"}
    assert plain.layer("alias") is plain.layer("first")


def test_an_audit_comes_back_from_its_folder_with_its_channels(
    audit: Audit, tmp_path: Path
) -> None:
    written = write_results(audit, tmp_path / "r", plots=False)
    assert [path.name for path in written] == ["audit.json", "layers.csv", "channels.npz"]
    for place in (tmp_path / "r", tmp_path / "r" / "audit.json"):
        back = read_results(place)
        assert replace(back, channels=None) == replace(audit, channels=None)
        assert back.channels is not None
        assert audit.channels is not None
        same(back.channels, audit.channels)


def test_files_are_readable_by_whom_the_umask_says(audit: Audit, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path in write_results(audit, tmp_path / "r", plots=False):
        assert path.stat().st_mode == plain.stat().st_mode


def test_the_document_is_strict_json_without_nan(audit: Audit) -> None:
    layer = replace(audit.layers[0], mean_part=math.nan, scale_part=math.inf, momentum=-math.inf)
    text = replace(audit, layers=(layer, *audit.layers[1:])).to_json()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    stored = json.loads(text, parse_constant=refuse)["layers"][0]
    assert (stored["mean_part"], stored["scale_part"], stored["momentum"]) == (None, None, None)
    back = Audit.from_json(text).layers[0]
    assert (back.mean_part, back.scale_part, back.momentum) == (None, None, None)


def test_the_table_has_a_row_a_layer_and_flat_estimates(audit: Audit) -> None:
    table = audit.to_frame()
    assert table["name"].tolist() == ["first", "twice", "unused"]
    for figure in ("total_shift", "output_shift"):
        for column in ("", "_low", "_high", "_noise_floor", "_plain"):
            assert table[f"{figure}{column}"].dtype.kind == "f"
    for column in ("kind", "status", "channels", "mean_part", "discrepancy", "batch_noise"):
        assert column in table
    assert not any(table[column].map(lambda v: isinstance(v, dict)).any() for column in table)
    first = audit.layer("first")
    assert first.total_shift is not None
    assert table.loc[0, "total_shift"] == first.total_shift.value
    assert table.loc[0, "total_shift_low"] == first.total_shift.low
    assert table.loc[0, "aliases"] == "alias"
    assert table.loc[2, ["total_shift", "discrepancy"]].isna().all()


def test_the_table_of_an_audit_without_layers_is_empty(audit: Audit) -> None:
    assert len(replace(audit, layers=()).to_frame()) == 0
    assert "0 BatchNorm layers" in replace(audit, layers=())._repr_html_()


def test_html_escapes_what_a_user_named(audit: Audit) -> None:
    evil = "<script>alert(1)</script>"
    layer = replace(audit.layers[0], name=evil)
    html = replace(
        audit,
        model=replace(audit.model, source=evil),
        verdict=Verdict("shifted", f"{evil} & more"),
        layers=(layer, *audit.layers[1:]),
    )._repr_html_()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 3
    assert "&amp; more" in html


def test_channels_come_back_from_npz_as_they_were(audit: Audit, tmp_path: Path) -> None:
    assert audit.channels is not None
    odd = replace(audit.channels, shift=audit.channels.shift.copy())
    odd.shift[0] = np.nan
    odd.save(tmp_path / "channels.npz")
    same(ChannelTable.load(tmp_path / "channels.npz"), odd)
    assert odd.layer("twice")["gamma"].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            lambda whole: b"",
            id="empty",
        ),
        pytest.param(
            lambda whole: b"text",
            id="text",
        ),
        pytest.param(
            lambda whole: whole[: len(whole) // 2],
            id="truncated",
        ),
        pytest.param(
            lambda whole: whole[:200] + bytes(40) + whole[240:],
            id="overwritten",
        ),
    ],
)
def test_damaged_channels_are_an_input_error_that_names_the_file(
    audit: Audit, tmp_path: Path, damage: Any
) -> None:
    write_results(audit, tmp_path, plots=False)
    file = tmp_path / "channels.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=r"channels\.npz") as caught:
        read_results(tmp_path)
    assert "allow_pickle" not in str(caught.value)


def test_channels_of_another_audit_are_an_input_error(audit: Audit, tmp_path: Path) -> None:
    write_results(audit, tmp_path / "r", plots=False)
    assert audit.channels is not None
    replace(audit.channels, names=np.array(["a", "b"])).save(tmp_path / "r" / "channels.npz")
    with pytest.raises(InputError, match=r"channels\.npz"):
        write_results(read_results(tmp_path / "r"), tmp_path / "again")


def test_channels_beside_an_audit_of_another_name_are_not_its_own(
    audit: Audit, tmp_path: Path
) -> None:
    write_results(audit, tmp_path, plots=False)
    (tmp_path / "channels.npz").write_bytes(b"somebody's")
    (tmp_path / "main.json").write_text(audit.to_json(), encoding="utf-8")
    assert read_results(tmp_path / "main.json") == replace(audit, channels=None)


def test_what_an_earlier_run_left_is_removed_and_nothing_else(audit: Audit, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    written = write_results(audit, folder)
    assert set(written) <= set(result_files(folder))
    assert {path.suffix for path in written} == {".json", ".csv", ".npz", ".png", ".svg"}
    (folder / "notes.txt").write_text("mine")
    remove_results(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    remove_results(tmp_path / "nowhere")


def places(document: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value in the document, of a list only its first item's."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document[:1]))
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def holder(document: Any, place: tuple[str | int, ...]) -> Any:
    for key in place[:-1]:
        document = document[key]
    return document


def test_a_value_of_the_wrong_type_is_an_input_error_that_names_the_field(audit: Audit) -> None:
    document = json.loads(audit.to_json())
    # A finding's evidence is whatever its rule says.
    every = [p for p in places(document) if p != ("schema",) and "evidence" not in p[:-1]]
    assert len(every) > 80
    for place in every:
        wrong = copy.deepcopy(document)
        holder(wrong, place)[place[-1]] = object_of_no_field()
        with pytest.raises(InputError) as caught:
            Audit.from_json(json.dumps(wrong), source="r/audit.json")
        assert str(caught.value).startswith("r/audit.json: field "), place
        assert ".".join(map(str, place)) in str(caught.value), place


def object_of_no_field() -> list[Any]:
    return [[{"no": "field"}]]


def test_a_missing_field_is_an_input_error_that_names_it(audit: Audit) -> None:
    document = json.loads(audit.to_json())
    for field in ("versions", "device", "dtype", "model", "data", "layers", "network"):
        wrong = {key: value for key, value in document.items() if key != field}
        with pytest.raises(InputError, match=rf"r/audit\.json: .*field {field} is missing"):
            Audit.from_json(json.dumps(wrong), source="r/audit.json")
    del document["layers"][1]["channels"]
    with pytest.raises(InputError, match=r"field layers\.1\.channels: .*required"):
        Audit.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("null", "`schema`"),
        ("{}", "`schema`"),
        ('{"schema": 2}', "schema 2, this version reads 1"),
        ('{"schema": "1"}', "schema '1'"),
        ('{"schema": [1]}', "schema"),
    ],
)
def test_what_is_no_audit_is_an_input_error(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        Audit.from_json(text, source="x.json")
    assert str(caught.value).startswith("x.json: ")
    assert words in str(caught.value)


def test_true_is_no_schema() -> None:
    with pytest.raises(InputError, match="schema True"):
        Audit.from_json('{"schema": true}')


def test_an_unknown_status_is_an_input_error(audit: Audit) -> None:
    document = json.loads(audit.to_json())
    document["layers"][0]["status"] = "fine"
    with pytest.raises(InputError, match=r"field layers\.0\.status: .*'audited'"):
        Audit.from_json(json.dumps(document))


def test_fields_that_a_later_version_adds_are_passed_over(audit: Audit) -> None:
    document = json.loads(audit.to_json()) | {"later": 1}
    document["layers"][0]["later"] = 1
    assert Audit.from_json(json.dumps(document)) == replace(audit, channels=None)
