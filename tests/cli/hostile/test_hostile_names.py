"""Names that would command a terminal, a log or a document, or lead out of the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from attacks import in_turn, kinds
from workplace import contents, network

NAMES = {
    "clears the screen": "\x1b[2J\x1b[1;1Hall is well",
    "sets the title": "\x1b]0;title\x07",
    "the other escape": "\x9b31mred",
    "carriage return": "bad\rgood",
    "backspaces": "bad\b\b\bgood",
    "a null character": "a\0b",
    "turns the direction": "\u202egnp.1reyal",
    "half a surrogate pair": "layer\ud800",
    "markup of rich": "[red]x[/red][/][link=https://example.org]y",
    "mathematics": "$\\frac{1}$ a_b^{",
    "HTML": "<script>alert(1)</script>&amp;<!--",
    "XML": "]]></failure><testcase name='x'/>",
    "a workflow command": "::error::x%0A::set-output name=a::b",
    "Markdown": "a|b`c`|[x](javascript:alert(1))",
    "a formula": '=HYPERLINK("https://example.org")',
    "out of the folder": "../../../../etc/passwd",
    "an absolute path": "/etc/passwd",
    "nothing": "",
    "long": "x" * 9000,
    "not Latin": "слой.层.طبقة",
}

IN_FILES = ("half a surrogate pair", "mathematics", "out of the folder")
"""Names that plots, tables and paths may stumble over, each in its own way."""

VERBS = (
    "report odd",
    "gate odd",
    "gate odd --format markdown",
    "gate odd --format junit",
    "gate odd --format github",
    "gate odd --format json",
    "compare good odd",
    "compare odd good",
    "compare odd odd",
)

Runs = Callable[..., str]


@pytest.fixture
def named(request: pytest.FixtureRequest, folder: Path, measured: Path) -> Path:
    """A real Audit in which every text that may be anything is such a name."""
    name = NAMES[request.param]
    return renamed(folder, measured, name, [name])


@pytest.fixture
def all_named(folder: Path, measured: Path) -> Path:
    """A real Audit in which every name is that of a layer and of a finding."""
    return renamed(folder, measured, "\n".join(NAMES.values()), list(NAMES.values()))


def renamed(folder: Path, measured: Path, text: str, names: list[str]) -> Path:
    """The folder `odd` beside `good`: a layer and a finding a name, any other text is `text`."""
    shutil.copytree(measured, folder / "good")
    shutil.copytree(measured, folder / "odd")
    (folder / "odd" / "channels.npz").unlink()
    document = json.loads((measured / "audit.json").read_text())
    document["model"]["source"] = document["data"]["source"] = document["device"] = text
    document["notes"] = document["data"]["notes"] = names
    document["verdict"]["sentence"] = text
    layers: list[dict[str, Any]] = document["layers"]
    document["layers"] = [
        *(layers[0] | {"name": name, "note": name, "kind": name} for name in names),
        *layers[1:],
    ]
    document["findings"] = [
        {
            "code": "BN101",
            "name": name,
            "severity": "error",
            "sentence": f"layer {name} is wrong",
            "remedy": name,
            "command": name,
            "source": name,
            "layers": [name],
        }
        for name in names
    ]
    (folder / "odd" / "audit.json").write_text(json.dumps(document))
    return Path("odd")


@pytest.mark.parametrize(("named", "verb"), in_turn(kinds(NAMES), VERBS), indirect=["named"])
def test_no_name_of_an_audit_commands_the_terminal(named: Path, runs: Runs, verb: str) -> None:
    nothing_raw(runs, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_nor_do_all_names_together(all_named: Path, runs: Runs, verb: str) -> None:
    nothing_raw(runs, verb)


def nothing_raw(runs: Runs, verb: str) -> None:
    printed = runs(*verb.split(), codes=(0, 1))
    assert printed
    if "junit" in verb:
        ElementTree.fromstring(printed)


@pytest.fixture(autouse=True)
def _no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "named",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in IN_FILES)) for name in NAMES],
    indirect=True,
)
def test_files_are_written_in_the_folder_and_nowhere_else(
    named: Path, folder: Path, runs: Runs
) -> None:
    before = contents(folder)
    runs("report", "odd", "-o", "out")
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    new = set(after) - set(before)
    assert {path.partition("/")[0] for path in new} == {"out"}
    assert json.loads((folder / "out" / "audit.json").read_text())


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind not in ("nothing", "long")])
def test_no_name_in_a_checkpoint_commands_the_terminal(folder: Path, runs: Runs, kind: str) -> None:
    state = {
        f"{NAMES[kind]}.{key.partition('.')[2]}" if key.startswith("1.") else key: value
        for key, value in network().state_dict().items()
    }
    torch.save(state, "odd.pt")
    assert "BN" in runs("inspect", "odd.pt", codes=(0, 1))


def test_no_key_of_a_configuration_commands_the_terminal(folder: Path, runs: Runs) -> None:
    text = '[gate.per_layer_ignores]\n"\\u001b[2J" = ["all"]\n[model_arg]\n"\\u202e" = "\\u0007"\n'
    Path("bnaudit.toml").write_text(text)
    assert "bnaudit.toml:2" in runs("config", "show")
