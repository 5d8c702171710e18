"""A gate as Markdown: parsed by a library, every name comes back as it was and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import gates
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bnaudit.report.judged import printable
from bnaudit.report.markdown import MOST, code, markdown, text
from bnaudit.results import Gate

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

NAMES = [
    "a|b",
    "a\\|b",
    "`code`",
    "``",
    "`",
    " a ",
    "*bold* _it_ __it__ ~~gone~~",
    "<img src=x onerror=alert(1)>",
    "</details>",
    "<!-- -->",
    "&amp; &lt;",
    "[link](javascript:alert(1))",
    "![image](http://example.org/x.png)",
    "a\nb",
    "a\r\n\r\n# heading",
    "$math$",
    "\\",
    "a\\`b",
    "\x1b[31m",
    "\ud800",
    gates.NASTY,
]


def html_of(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from html_of(token.children or [])


def content(token: Token) -> str:
    """The text that a reader sees in an inline token; our own tags and comments left out."""
    said = ""
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            said += child.content
        elif child.type in ("text_special", "softbreak"):
            said += child.content or " "
    return said


def rows(source: str) -> list[list[str]]:
    """The cells of all tables."""
    found: list[list[str]] = []
    for token, following in zip(
        tokens := PARSER.parse(source), [*tokens[1:], tokens[-1]], strict=True
    ):
        if token.type == "tr_open":
            found.append([])
        if token.type in ("td_open", "th_open"):
            found[-1].append(content(following))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", [text, code])
def test_a_name_in_a_table_comes_back_as_it_was(name: str, write: object) -> None:
    assert callable(write)
    source = f"| a | b |\n| --- | --- |\n| x{write(name)}y | z |\n"
    (_, (cell, other)) = rows(source)
    expected = printable(name)
    assert " ".join(cell.split()) == " ".join(f"x{expected}y".split())
    assert other == "z"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_brings_no_html_no_link_no_image_and_no_emphasis(name: str) -> None:
    tokens = list(html_of(PARSER.parse(f"x {text(name)} {code(name)} y")))
    assert {token.type for token in tokens} <= {
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special", "code_inline"),
        "html_inline",
    }
    html = {token.content for token in tokens if token.type == "html_inline"}
    assert html <= {"<!-- -->", "<code>", "</code>"}


def test_nobody_is_mentioned() -> None:
    assert not re.search(r"@\w", text("ping @team and #12"))
    assert not re.search(r"#\d", text("ping @team and #12"))


def test_what_is_too_long_is_cut_before_it_is_escaped() -> None:
    said = text("|" * 5000)
    assert said.replace("\\|", "|") == "|" * (MOST - 1) + "…"
    assert not said.endswith("\\")


@pytest.mark.parametrize("gate", [gates.failing(), gates.nasty(), gates.many(50)])
def test_tables_have_as_many_cells_in_every_row(gate: Gate) -> None:
    found = rows(markdown(gate))
    assert found
    assert {len(row) for row in found} <= {3, 6}


@pytest.mark.parametrize(
    "gate", [gates.failing(), gates.nasty(), gates.passing(), gates.inconclusive()]
)
def test_folded_parts_are_closed(gate: Gate) -> None:
    blocks = [
        token.content
        for token in html_of(PARSER.parse(markdown(gate)))
        if token.type in ("html_block", "html_inline")
    ]
    said = "".join(blocks)
    assert said.count("<details>") == said.count("</details>")
    assert said.count("<summary>") == said.count("</summary>")


def test_the_verdict_is_the_heading() -> None:
    for gate, verdict in (
        (gates.failing(), "FAIL"),
        (gates.passing(), "PASS"),
        (gates.inconclusive(), "INCONCLUSIVE"),
    ):
        first = markdown(gate).splitlines()[0]
        assert first.startswith("### ")
        assert first.endswith(f"bnaudit gate: {verdict}")


def test_failing_checks_are_the_first_table() -> None:
    first = rows(markdown(gates.failing()))[:3]
    assert first[0] == ["Failing", "Layers", "What was found"]
    assert first[1][:2] == ["BN101 estimation-shift (error)", "layer1.2.bn1"]
    assert first[1][2] == gates.FAILING.sentence
    assert first[2][0].startswith("layer_esm")


def test_remedies_and_commands_are_folded_and_given_once() -> None:
    other = replace(gates.FAILING, name="BN201", remedy="Recalibrate too.")
    said = markdown(replace(gates.failing(), checks=(gates.FAILING, gates.FAILING, other)))
    assert said.count(str(gates.FAILING.remedy)) == 1
    assert "Recalibrate too. (the command of `BN101`)" in said
    (fence,) = [token for token in PARSER.parse(said) if token.type == "fence"]
    assert fence.content == f"{gates.FAILING.command}\n"


@pytest.mark.parametrize("command", ["echo ```", "a\nb", "`x` ````"])
def test_a_command_stays_in_its_block(command: str) -> None:
    gate = replace(gates.failing(), checks=(replace(gates.FAILING, command=command),))
    (fence,) = [token for token in PARSER.parse(markdown(gate)) if token.type == "fence"]
    assert fence.content == f"{printable(command)}\n"


def test_with_a_baseline_the_layers_are_tabled_what_moved_first() -> None:
    found = rows(markdown(gates.failing()))
    layers = found[[row[0] for row in found].index("Layer") + 1 :]
    assert len(layers) == 9
    assert layers[0] == ["layer1.2.bn1", ".050", ".350", "+.300", "+.290 to +.310", "worse"]
    assert {row[5] for row in layers[1:]} == {""}
    without = markdown(replace(gates.failing(), changes=None))
    assert "Against the baseline" not in without
    assert [row[0] for row in rows(without)].count("Layer") == 0


def test_what_does_not_count_is_said() -> None:
    said = markdown(gates.failing())
    for part in ("Waived: 2", "gate.ignore BN201", "nothing to ignore any more", "No labels."):
        assert part in said


def test_a_real_gate_says_the_layer_that_broke() -> None:
    sound, broken = map(markdown, gates.measured())
    assert "Failing" not in sound
    assert [row[1] for row in rows(broken) if row[0].startswith("layer_esm")] == ["4"]
