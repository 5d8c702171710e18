"""Settings: from a file, from the command line, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnaudit.config import ConfigFile, Settings, find_config, read_config, resolve
from bnaudit.errors import InputError


def file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def given(**options: Any) -> dict[str, Any]:
    """What the command line hands over: None for what it does not say."""
    return dict.fromkeys(Settings.model_fields) | options


def test_without_a_file_the_defaults_hold() -> None:
    settings = resolve(given(), None)
    assert settings == Settings()
    assert (settings.samples, settings.task, settings.device) == (None, "auto", "auto")


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    config = read_config(file(tmp_path / "a.toml", "seed = 3\nsamples = 'all'\nplots = false"))
    settings = resolve(given(seed=4), config)
    assert (settings.seed, settings.samples, settings.plots) == (4, "all", False)
    assert resolve(given(plots=True), config).plots


def test_arguments_of_both_are_merged_key_by_key(tmp_path: Path) -> None:
    config = read_config(file(tmp_path / "a.toml", "model_arg = {width = 4, depth = 2}"))
    settings = resolve(given(model_arg={"depth": 3, "classes": 5}), config)
    assert settings.model_arg == {"width": 4, "depth": 3, "classes": 5}
    assert config.values["model_arg"] == {"width": 4, "depth": 2}


def test_names_may_have_dashes_as_on_the_command_line(tmp_path: Path) -> None:
    config = read_config(file(tmp_path / "a.toml", "batch-size = 7\n[model-arg]\nwidth = 4"))
    assert config.values == {"batch_size": 7, "model_arg": {"width": 4}}


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = """
checkpoint = "weights/a.pt"
output = "results"
model = "nets/net.py:model"
data = "imagefolder:val"
transform = "nets/net.py:transform"
forward = "../forward.py:fn"
compare = "/elsewhere/compare.py:fn"
"""
    values = read_config(file(tmp_path / "run" / "a.toml", text)).values
    here = tmp_path / "run"
    assert values == {
        "checkpoint": str(here / "weights/a.pt"),
        "output": str(here / "results"),
        "model": f"{here}/nets/net.py:model",
        "data": f"imagefolder:{here}/val",
        "transform": f"{here}/nets/net.py:transform",
        "forward": f"{here}/../forward.py:fn",
        "compare": "/elsewhere/compare.py:fn",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "torchvision:resnet50"),
        ("model", "timm:resnet26d"),
        ("model", "package.module:factory"),
        ("transform", "imagenet"),
        ("transform", "ResNet50_Weights.IMAGENET1K_V2"),
        ("data", "npz:/data/val.npz"),
        ("device", "cuda:1"),
        ("checkpoint_key", "state_dict.ema"),
    ],
)
def test_what_is_no_relative_path_stays(tmp_path: Path, key: str, value: str) -> None:
    assert read_config(file(tmp_path / "a.toml", f'{key} = "{value}"')).values == {key: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [("data", "npz:~/val.npz"), ("model", "~/net.py:model"), ("checkpoint", "~/a.pt")],
)
def test_a_path_in_the_home_folder_is_not_relative(tmp_path: Path, key: str, value: str) -> None:
    found = read_config(file(tmp_path / "a.toml", f'{key} = "{value}"')).values[key]
    assert str(tmp_path) not in found


def test_bnaudit_toml_is_found_before_pyproject(tmp_path: Path) -> None:
    assert find_config(tmp_path) is None
    pyproject = file(tmp_path / "pyproject.toml", "[tool.other]\nx = 1")
    assert find_config(tmp_path) is None
    file(pyproject, "[tool.bnaudit]\nseed = 5")
    assert find_config(tmp_path) == pyproject
    assert read_config(pyproject).values == {"seed": 5}
    own = file(tmp_path / "bnaudit.toml", "seed = 6")
    assert find_config(tmp_path) == own


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batchsize = 3", [":1: ", "'batchsize'", "did you mean 'batch_size'?"]),
        ("Model = 'x'", ["'Model'", "did you mean 'model'?"]),
        ("zzz = 3", ["'zzz'", "known are ", "batch_size"]),
        ("seed = \n", ["TOML", "line 1"]),
        ("seed = 1\nseed = 2\n", ["TOML", "line 2"]),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = file(tmp_path / "a.toml", text)
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes("device = 'ü'".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.toml: cannot be read as TOML"):
        read_config(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("samples", 0, "a positive number, or all"),
        ("samples", [3], "a positive number, or all"),
        ("batch_size", 0, "greater than or equal to 1"),
        ("train_batch_size", -2, "greater than or equal to 1"),
        ("workers", 1.5, "integer"),
        ("seed", "x", "integer"),
        ("dtype", "float8", "'float32', 'bf16' or 'fp16'"),
        ("task", 3, "'auto', 'classification' or 'other'"),
        ("plots", "perhaps", "true or false"),
        ("model_arg", ["width=3"], "a table"),
        ("model", 3, "give text"),
        ("checkpoint", 3, "path"),
    ],
)
def test_a_wrong_value_names_the_files_key_or_the_option(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        resolve(given(), ConfigFile(tmp_path / "a.toml", {key: value}))
    assert str(caught.value).startswith(f"{tmp_path / 'a.toml'}: key {key!r}: ")
    assert words in str(caught.value)
    assert repr(value) in str(caught.value)
    with pytest.raises(InputError) as caught:
        resolve(given(**{key: value}), ConfigFile(tmp_path / "a.toml", {"seed": 1}))
    assert str(caught.value).startswith(f"--{key.replace('_', '-')}: ")
