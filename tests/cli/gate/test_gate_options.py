"""Every option of `bnaudit gate` reaches its setting, and wins over the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gate_runs import HEALTHY, WRONG, gate_command, one_line
from workplace import Run

from bnaudit.config import Settings
from bnaudit.errors import InputError
from bnaudit.results import Gate

OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], object, str]] = {
    # parameter: (as given, the setting, its value, what the file says otherwise)
    "fail_on": (("--fail-on", "info"), ("gate", "fail_on"), "info", '"error"'),
    "inconclusive": (("--inconclusive", "pass"), ("gate", "inconclusive"), "pass", '"fail"'),
    "max_layer_esm": (("--max-layer-esm", "0.2"), ("gate", "max_layer_esm"), 0.2, "0.9"),
    "max_total_esm": (("--max-total-esm", "0.2"), ("gate", "max_total_esm"), 0.2, "0.9"),
    "max_disagreement": (("--max-disagreement", "0"), ("gate", "max_disagreement"), 0.0, "0.9"),
    "max_cross_entropy": (("--max-cross-entropy", "2"), ("gate", "max_cross_entropy"), 2.0, "9"),
    "min_accuracy": (("--min-accuracy", "0"), ("gate", "min_accuracy"), 0.0, "0.9"),
    "baseline": (("--baseline", "b.json"), ("gate", "baseline"), Path("b.json"), '"x.json"'),
    "base_checkpoint": (
        ("--base-checkpoint", "o.pt"),
        ("gate", "base_checkpoint"),
        Path("o.pt"),
        '"x.pt"',
    ),
    "report": (
        ("--report", "json=a.json", "--report", "junit=b.xml"),
        ("gate", "report"),
        ("json=a.json", "junit=b.xml"),
        '["markdown=x.md"]',
    ),
    "subject": (("c.pt",), ("checkpoint",), Path("c.pt"), '"x.pt"'),
    "threshold": (
        ("--threshold", "BN101.shift=0.3"),
        ("thresholds",),
        {"BN101": {"shift": 0.3}},
        "{ BN101 = { shift = 0.9 } }",
    ),
    "select": (("--select", "BN1", "--select", "BN2"), ("select",), ["BN1", "BN2"], '["BN3"]'),
    "ignore": (("--ignore", "BN107"), ("ignore",), ["BN107"], '["BN3"]'),
    "model": (("--model", "a.py:f"), ("model",), "a.py:f", '"x.py:f"'),
    "model_arg": (("--model-arg", "depth=3"), ("model_arg",), {"depth": 3}, "{ depth = 9 }"),
    "checkpoint_key": (("--checkpoint-key", "ema"), ("checkpoint_key",), "ema", '"x"'),
    "allow_mismatch": (("--allow-mismatch",), ("allow_mismatch",), True, "false"),
    "trust_pickle": (("--trust-pickle",), ("trust_pickle",), True, ""),
    "data": (("--data", "npz:a.npz"), ("data",), "npz:a.npz", '"npz:x.npz"'),
    "data_arg": (("--data-arg", "split=val"), ("data_arg",), {"split": "val"}, '{ split = "x" }'),
    "transform": (("--transform", "imagenet"), ("transform",), "imagenet", '"x.py:f"'),
    "samples": (("--samples", "all"), ("samples",), "all", "9"),
    "skip_bad": (("--no-skip-bad",), ("skip_bad",), False, "true"),
    "train_data": (("--train-data", "npz:t.npz"), ("train_data",), "npz:t.npz", '"npz:x.npz"'),
    "train_data_arg": (
        ("--train-data-arg", "split=t"),
        ("train_data_arg",),
        {"split": "t"},
        '{ split = "x" }',
    ),
    "batch_size": (("--batch-size", "16"), ("batch_size",), 16, "9"),
    "train_batch_size": (("--train-batch-size", "8"), ("train_batch_size",), 8, "9"),
    "attribute": (("--attribute", "all"), ("attribute",), "all", "9"),
    "device": (("--device", "cpu"), ("device",), "cpu", '"cuda"'),
    "dtype": (("--dtype", "bf16"), ("dtype",), "bf16", '"fp16"'),
    "channels_last": (("--channels-last",), ("channels_last",), True, "false"),
    "workers": (("--workers", "2"), ("workers",), 2, "9"),
    "decode": (("--decode", "cpu"), ("decode",), "cpu", '"gpu"'),
    "seed": (("--seed", "5"), ("seed",), 5, "9"),
    "forward": (("--forward", "a.py:f"), ("forward",), "a.py:f", '"x.py:f"'),
    "task": (("--task", "other"), ("task",), "other", '"classification"'),
    "compare": (("--compare", "a.py:f"), ("compare",), "a.py:f", '"x.py:f"'),
    "output": (("-o", "out"), ("output",), Path("out"), '"x"'),
    "plots": (("--no-plots",), ("plots",), False, "true"),
}

TESTED_BY_WHAT_THEY_DO = {"config", "output_format", "show_all", "write_baseline"}


def test_every_option_is_tested_to_do_something() -> None:
    names = {parameter.name for parameter in gate_command().params} - {"help"}
    assert names == OPTIONS.keys() | TESTED_BY_WHAT_THEY_DO


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reaches_its_setting_and_wins_over_the_file(
    bnaudit: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given, place, expected, otherwise = OPTIONS[name]
    seen: list[Settings] = []

    def judged(settings: Settings, *_: object, **__: object) -> None:
        seen.append(settings)
        raise InputError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bnaudit.cli.gate_run.judge", judged)
    table = "[gate]\n" if place[0] == "gate" else ""
    line = f"{table}{place[-1]} = {otherwise}\n" if otherwise else ""
    (tmp_path / "other.toml").write_text(line)
    assert "enough" in one_line(bnaudit("gate", *given, "--config", "other.toml"))
    value: Any = seen[0]
    for part in place:
        value = getattr(value, part)
    assert value == expected
    if otherwise:
        bnaudit("gate", "--config", "other.toml")
        value = seen[1]
        for part in place:
            value = getattr(value, part)
        assert value != expected


def test_the_table_of_the_file_is_in_force(bnaudit: Run, work: Path, audit: Path) -> None:
    (work / "gate.toml").write_text(
        """\
[gate]
max_layer_esm = 0.12
max_total_esm = 5.0
ignore = ["BN1"]
report = ["json=here/gate.json"]
per_layer_ignores = { "blocks.3.*" = ["max_layer_esm"], "head.*" = ["all"] }
"""
    )
    (work / "wrong.json").write_bytes(_measured(bnaudit, work).read_bytes())
    ran = bnaudit("gate", "wrong.json", "--config", "gate.toml", "--select", "BN1")
    assert ran.code == 1
    found = Gate.from_json((work / "here" / "gate.json").read_text())
    (check,) = found.with_outcome("fail")
    assert (check.name, check.layers) == ("max_layer_esm", ("blocks.2.bn2",))
    assert "gate.per_layer_ignores 'head.*' all: matches no layer" in found.unused_ignores
    assert {each.setting for each in found.waived} == {"gate.ignore BN1"}


def _measured(bnaudit: Run, work: Path) -> Path:
    assert bnaudit("gate", WRONG, "--write-baseline", "--baseline", "m.json").code == 0
    return work / "m.json"


def test_the_file_in_the_folder_is_named_before_it_is_used(bnaudit: Run, work: Path) -> None:
    assert bnaudit("gate", HEALTHY).err.startswith("using settings from bnaudit.toml")
