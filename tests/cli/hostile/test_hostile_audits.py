"""Audits and baselines that are damaged or made up: one line, exit code 2, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from attacks import (
    NOT_FILES,
    OTHER_FILES,
    Damage,
    Refused,
    changed,
    in_turn,
    kinds,
    put,
    raw,
    without,
)

VERBS: dict[str, list[str]] = {
    "report": ["report", "bad.json"],
    "report into a folder": ["report", "bad.json", "-o", "out"],
    "gate": ["gate", "bad.json"],
    "gate with a baseline": ["gate", "good/audit.json", "--baseline", "bad.json"],
    "compare": ["compare", "bad.json", "good"],
    "compare with": ["compare", "good", "bad.json"],
}

LAYER = ("layers", 0)
SHIFT = (*LAYER, "total_shift")
DEEP = 100_000
LONG = "9" * 400


def nested(opening: str, closing: str) -> Damage:
    return raw("findings", to=opening * DEEP + closing * DEEP)


def same_layer_twice(text: str) -> str:
    import json

    document = json.loads(text)
    document["layers"] += document["layers"]
    return json.dumps(document)


TEXTS: list[tuple[str, Damage, str]] = [
    # Not the whole of a document
    ("empty", lambda text: "", "not JSON"),
    ("blank", lambda text: " \n\n", "not JSON"),
    ("its first character", lambda text: text[:1], "not JSON"),
    ("half of it", lambda text: text[: len(text) // 2], "not JSON"),
    ("without its end", lambda text: text.rstrip()[:-1], "not JSON"),
    ("cut within a number", lambda text: text[: text.index("0.") + 2], "not JSON"),
    ("with more behind it", lambda text: text + text, "not JSON"),
    ("a merge conflict", lambda text: f"<<<<<<< HEAD\n{text}=======\n", "not JSON"),
    ("null", lambda text: "null", "not an Audit"),
    ("a list", lambda text: f"[{text}]", "not an Audit"),
    ("a number", lambda text: "3", "not an Audit"),
    ("a text", lambda text: '"audit"', "not an Audit"),
    ("another document", lambda text: '{"name": "x"}', "not an Audit"),
    # Encodings
    ("UTF-16", lambda text: text.encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
    ("UTF-16 without a mark", lambda text: text.encode("utf-16-be"), "not JSON"),
    ("Latin-1", lambda text: (text + "ü").encode("latin-1"), "not UTF-8"),
    ("a null character", lambda text: text.replace(":", ":\0", 1), "not JSON"),
    # Nesting and size
    ("lists in lists", nested("[", "]"), "nested too deeply"),
    ("objects in objects", nested('{"a":', "1}"[1:]), "not JSON"),
    ("lists without an end", lambda text: "[" * DEEP, "nested too deeply"),
    ("a million layers", raw("layers", to="[" + "{}," * 999_999 + "{}]"), "1,000,000 entries"),
    ("many layers", raw("layers", to="[" + "{}," * 99_999 + "{}]"), "field layers.0.name"),
    # Versions
    ("no schema", without("schema"), "no field `schema`"),
    ("an older schema", changed("schema", to=0), "schema 0, this version reads 1"),
    ("a newer schema", changed("schema", to=2), "schema 2, this version reads 1"),
    ("a switch for a schema", changed("schema", to=True), "schema True"),
    ("a text for a schema", changed("schema", to="1"), "schema '1'"),
    ("a fraction for a schema", changed("schema", to=1.5), "schema 1.5"),
    ("a list for a schema", changed("schema", to=[[1]] * 999), "schema [[1], [1]"),
    # Keys
    ("a key twice", lambda text: text.replace("{", '{"schema": 1,', 1), "'schema' stands twice"),
    ("a key twice inside", raw(*SHIFT, to='{"value": 1, "value": 2}'), "'value' stands twice"),
    ("no layers", without("layers"), "field layers"),
    ("no name", without(*LAYER, "name"), "field layers.0.name"),
    ("no value", without(*SHIFT, "value"), "field layers.0.total_shift.value"),
    # Numbers
    ("NaN", raw(*SHIFT, "value", to="NaN"), "NaN is no number in JSON"),
    ("infinity", raw(*SHIFT, "high", to="Infinity"), "Infinity is no number in JSON"),
    ("minus infinity", raw(*SHIFT, "low", to="-Infinity"), "-Infinity is no number"),
    ("1e999", raw(*SHIFT, "value", to="1e999"), "1e999 is too large"),
    ("1e300", raw(*SHIFT, "standard_error", to="1e300"), "1e300 is too large"),
    ("1e90 of a shift", raw(*SHIFT, "value", to="1e90"), "total_shift.value: 1e+90 is too large"),
    (
        "a ratio of no channels",
        changed(*LAYER, "variance_ratio", "channels", to=0),
        "variance_ratio.channels: 0, and of none",
    ),
    (
        "a ratio beyond all numbers",
        changed(*LAYER, "variance_ratio", "log_median", to=-710.5),
        "variance_ratio.log_median: -710.5 is too large",
    ),
    ("400 digits", raw(*SHIFT, "value", to=LONG), "9... is too large"),
    ("400 digits of a count", raw(*LAYER, "count", to=LONG), "9... is too large"),
    ("5000 digits", raw(*LAYER, "count", to="9" * 5000), "9... is too large"),
    ("5000 digits of a schema", raw("schema", to="9" * 5000), "9... is too large"),
    ("2 to the 63rd", changed(*LAYER, "channels", to=2**63), "is too large"),
    # Types
    ("text for a number", changed(*SHIFT, "value", to="0.5"), "field layers.0.total_shift.value"),
    ("a switch for a number", changed(*SHIFT, "value", to=True), "field layers.0.total_shift"),
    ("a switch for a count", changed(*LAYER, "calls", to=False), "field layers.0.calls"),
    ("a number for a switch", changed(*LAYER, "affine", to=1), "field layers.0.affine"),
    ("a fraction of a count", changed("data", "samples", to=1.5), "field data.samples"),
    ("a number for text", changed(*LAYER, "name", to=7), "field layers.0.name"),
    ("a list for a name", changed(*LAYER, "name", to=["a"]), "field layers.0.name"),
    ("an object for a list", changed("layers", to={"0": {}}), "field layers"),
    ("a list for an object", changed("model", to=[1]), "field model"),
    ("text for an object", changed(*SHIFT, to="0.5"), "field layers.0.total_shift"),
    ("null for a text", changed("device", to=None), "field device"),
    ("null in a list", changed("layers", to=[None]), "field layers.0"),
    ("another word", changed(*LAYER, "status", to="fine"), "field layers.0.status"),
    ("another severity", changed("verdict", "level", to="great"), "field verdict.level"),
    ("numbers for findings", changed("findings", to=[1, 2]), "field findings.0"),
    # What cannot be
    ("a negative shift", changed(*SHIFT, "value", to=-0.1), "-0.1 is negative"),
    ("a negative error", changed(*SHIFT, "standard_error", to=-1e-9), "-1e-09 is negative"),
    ("negative groups", changed(*SHIFT, "groups", to=-8), "total_shift.groups: -8 is negative"),
    ("a negative count", changed(*LAYER, "count", to=-1), "layers.0.count: -1 is negative"),
    ("negative samples", changed("data", "samples", to=-64), "data.samples: -64 is negative"),
    ("a limit above the other", changed(*SHIFT, "low", to=9e9), "low 9e+09 is above high"),
    (
        "a negative square",
        changed(*LAYER, "left_out_squared_output_shift", 1, to=-1.0),
        "left_out_squared_output_shift: -1 is negative",
    ),
    (
        "too few groups",
        changed(*LAYER, "left_out_squared_shift", to=[0.1, 0.2]),
        "left_out_squared_shift: 2 entries for",
    ),
    (
        "an accuracy of 150%",
        changed("network", "deployed", "accuracy", to=1.5),
        "network.deployed.accuracy: 1.5 is not between 0 and 1",
    ),
    ("a layer twice", same_layer_twice, "field layers: two are called '1'"),
    (
        "more pairs than samples",
        changed("network", "only_deployed_correct", to=1000),
        "network.compared: 64, and 10",
    ),
    (
        "marks of other samples",
        changed("network", "correct", to={"count": 8, "bits": "AA=="}),
        "network.correct: 8 marks for 64 samples",
    ),
    (
        "marks that are no base64",
        changed("network", "correct", "bits", to="\\o/"),
        "network.correct: the bits are not base64",
    ),
    (
        "more marks than bits",
        changed("network", "agreed", "count", to=10**7),
        "field network.agreed: 8 bytes of bits do not fit 10000000 samples",
    ),
    (
        "a channel that is not there",
        changed(*LAYER, "undefined_channels", to=[0, 4000]),
        "layers.0.channels: 4, and channel 4000 is named",
    ),
    (
        "more samples than there are",
        changed("data", "available", to=3),
        "data.samples: 64 of 3 that there are",
    ),
]


@pytest.fixture
def good(folder: Path, measured: Path) -> Path:
    """The folder `good` with a real Audit in the current one."""
    return Path(shutil.copytree(measured, folder / "good"))


@pytest.mark.parametrize(("damage", "says", "verb"), in_turn(TEXTS, VERBS))
def test_a_damaged_audit_is_refused(
    good: Path, refused: Refused, damage: Damage, says: str, verb: str
) -> None:
    put(Path("bad.json"), damage((good / "audit.json").read_text()))
    said = refused(*VERBS[verb])
    assert "bad.json: " in said
    assert says in said


@pytest.mark.parametrize(("kind", "verb"), in_turn(kinds(OTHER_FILES), VERBS))
def test_another_file_in_place_of_an_audit_is_refused(
    good: Path, refused: Refused, kind: str, verb: str
) -> None:
    OTHER_FILES[kind](Path("bad.json"))
    assert "bad.json: " in refused(*VERBS[verb])
    assert not Path("marker").exists()


@pytest.mark.parametrize(("kind", "verb"), in_turn(kinds(NOT_FILES), VERBS))
def test_what_is_no_file_is_refused_and_not_waited_for(
    good: Path, refused: Refused, kind: str, verb: str
) -> None:
    NOT_FILES[kind](Path("bad.json"))
    args = VERBS[verb]
    if kind == "a file below a file":
        args = [arg.replace("bad.json", "net.py/bad.json") for arg in args]
    assert "bad.json: " in refused(*args)


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_of_the_name_is_refused(good: Path, refused: Refused, verb: str) -> None:
    Path("bad.json").mkdir()
    assert "bad.json/audit.json: cannot be read as an Audit: No such file" in refused(*VERBS[verb])
    Path("bad.json/audit.json").mkdir()
    assert "bad.json/audit.json: cannot be read as an Audit: Is a dir" in refused(*VERBS[verb])


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_that_is_too_long_is_refused(good: Path, refused: Refused, verb: str) -> None:
    args = [arg.replace("bad.json", "x" * 5000 + ".json") for arg in VERBS[verb]]
    said = refused(*args)
    assert "File name too long" in said or "no such file" in said


@pytest.mark.parametrize("how", ["with a byte order mark", "with the line ends of Windows"])
def test_what_editors_do_to_a_document_does_no_harm(good: Path, bnaudit: Any, how: str) -> None:
    text = (good / "audit.json").read_text()
    before = bnaudit("report", "good").out
    content = "\ufeff" + text if how == "with a byte order mark" else text.replace("\n", "\r\n")
    put(good / "audit.json", content)
    ran = bnaudit("report", "good")
    assert (ran.code, ran.err, ran.out) == (0, "", before)
