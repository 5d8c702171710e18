"""Whatever is wrong with the request: exit code 2, one line that names it and what to do, and the
folder as it was.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from workplace import Run, contents, network


@dataclass(frozen=True)
class Wrong:
    """A wrong request: what is put into the folder, the command, and what the error says."""

    name: str
    args: list[str]
    says: tuple[str, ...]
    prepare: Callable[[], object] = lambda: None
    """Why it is not so yet."""


def measuring(
    *more: str,
    checkpoint: str | None = "good.pt",
    model: str | None = "net.py:model",
    data: str | None = "npz:data.npz",
) -> list[str]:
    """The arguments of a measurement that would succeed but for what is asked for."""
    args = ["measure"] if checkpoint is None else ["measure", checkpoint]
    args += [] if model is None else ["--model", model]
    return [*args, *([] if data is None else ["--data", data]), *more]


def text(name: str, content: str | bytes) -> Callable[[], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda: Path(name).write_bytes(data)


def saved(name: str, make: Callable[[], object]) -> Callable[[], object]:
    return lambda: torch.save(make(), name)


def arrays(**values: Any) -> Callable[[], object]:
    return lambda: np.savez("bad.npz", **values)


class TouchesAFile:
    """Unpickling this runs code: it creates the file `marker`."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, ("marker", "w")


def truncate(source: str, name: str) -> None:
    whole = Path(source).read_bytes()
    Path(name).write_bytes(whole[: len(whole) // 2])


def truncated_safetensors() -> None:
    save_file(network().state_dict(), "whole.safetensors")
    truncate("whole.safetensors", "bad.safetensors")


def a_folder_with_a_checkpoint() -> None:
    Path("run").mkdir()
    Path("run/last.pt").touch()


def torchscript() -> None:
    torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 3, 8, 8)), "script.pt")


def one_bad_image() -> None:
    Path("images/cat/broken.png").write_bytes(b"not an image")


def images_of_two_sizes() -> None:
    Image.new("RGB", (5, 9)).save("images/cat/large.png")


def pixels(channels: int = 3, samples: int = 40) -> np.ndarray:
    return np.zeros((samples, 8, 8, channels), np.uint8)


FLOATS = np.zeros((40, 3, 8, 8), np.float32)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


CHECKPOINTS = [
    Wrong("missing", measuring(checkpoint="god.pt"), ("god.pt", "did you mean good.pt?")),
    Wrong(
        "empty",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "the file is empty", "download it again"),
        text("bad.pt", ""),
    ),
    Wrong(
        "truncated",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "truncated", "download it again"),
        lambda: truncate("good.pt", "bad.pt"),
    ),
    Wrong(
        "text",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "a text file, not a checkpoint", "torch.save"),
        text("bad.pt", "weights to follow\n"),
    ),
    Wrong(
        "folder",
        measuring(checkpoint="run"),
        ("run: a folder", "it holds last.pt"),
        a_folder_with_a_checkpoint,
    ),
    Wrong(
        "Git LFS pointer",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "Git LFS pointer", "git lfs pull"),
        text("bad.pt", LFS),
    ),
    Wrong(
        "pickle that needs code",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "needs code", "open", "--trust-pickle", "torch.save(model.state_dict()"),
        saved("bad.pt", lambda: {"state_dict": network().state_dict(), "x": TouchesAFile()}),
    ),
    Wrong(
        "bare pickle",
        measuring(checkpoint="bad.pkl"),
        ("bad.pkl", "a pickle that torch.save did not write", "re-save the weights"),
        lambda: Path("bad.pkl").write_bytes(pickle.dumps(TouchesAFile(), protocol=4)),
    ),
    Wrong(
        "pickled model",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "a whole pickled model", "--trust-pickle"),
        saved("bad.pt", network),
    ),
    Wrong(
        "safetensors truncated",
        measuring(checkpoint="bad.safetensors"),
        ("bad.safetensors", "truncated", "download it again"),
        truncated_safetensors,
    ),
    Wrong(
        "TorchScript",
        measuring(checkpoint="script.pt"),
        ("script.pt", "TorchScript", "torch.save(model.state_dict()"),
        torchscript,
    ),
    Wrong(
        "missing keys",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "6.weight", "missing", "--allow-mismatch"),
        saved("bad.pt", lambda: {k: v for k, v in network().state_dict().items() if k[0] != "6"}),
    ),
    Wrong(
        "wrong shapes",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "6.weight", "(7, 4)", "(3, 4)", "--model-arg"),
        saved("bad.pt", lambda: network(classes=7).state_dict()),
    ),
    Wrong(
        "unknown --checkpoint-key",
        measuring("--checkpoint-key", "ema"),
        ("good.pt", "'ema'", "give --checkpoint-key one of"),
    ),
    Wrong(
        "no weights in it",
        measuring(checkpoint="bad.pt"),
        ("bad.pt", "no state dict", "epoch", "--checkpoint-key"),
        saved("bad.pt", lambda: {"epoch": 3}),
    ),
]

MODELS = [
    Wrong("no --model", measuring(model=None), ("good.pt", "--model torchvision:NAME")),
    Wrong(
        "neither model nor checkpoint",
        measuring(model=None, checkpoint=None),
        ("no model", "--model torchvision:NAME"),
    ),
    Wrong(
        "unknown torchvision model",
        measuring(model="torchvision:resnet5O"),
        ("--model torchvision:resnet5O", "did you mean resnet50"),
    ),
    Wrong(
        "unknown scheme",
        measuring(model="torchvison:resnet50"),
        ("--model torchvison:resnet50", "did you mean torchvision:resnet50"),
    ),
    Wrong(
        "a name without a scheme",
        measuring(model="resnet50"),
        ("--model resnet50", "did you mean torchvision:resnet50?"),
    ),
    Wrong(
        "missing factory file",
        measuring(model="nets.py:model"),
        ("--model nets.py:model", "no file nets.py", "did you mean net.py?"),
    ),
    Wrong("no function named", measuring(model="net.py"), ("--model net.py", "net.py:NAME")),
    Wrong(
        "factory name missing",
        measuring(model="net.py:modle"),
        ("--model net.py:modle", "net.py has no modle", "did you mean model"),
    ),
    Wrong(
        "factory is no function",
        measuring(model="net.py:number"),
        ("--model net.py:number", "an int, not a function"),
    ),
    Wrong(
        "factory raising",
        measuring(model="net.py:raises"),
        ("--model net.py:raises", "ValueError: width must be even", "net.py:25"),
    ),
    Wrong(
        "factory file with a syntax error",
        measuring(model="broken.py:model"),
        ("--model broken.py:model", "SyntaxError", "broken.py:2"),
        text("broken.py", "def model():\n    return ((\n"),
    ),
    Wrong(
        "factory returning no module",
        measuring(model="net.py:gives_a_dict"),
        ("--model net.py:gives_a_dict", "not a model", "return the torch.nn.Module"),
    ),
    Wrong(
        "--model-arg without =",
        measuring("--model-arg", "width"),
        ("--model-arg width", "key=value"),
    ),
    Wrong(
        "unknown --model-arg",
        measuring("--model-arg", "witdh=8"),
        ("--model-arg witdh", "it accepts classes, width, depth", "did you mean width?"),
    ),
    Wrong(
        "lazy module",
        measuring(checkpoint=None, model="net.py:lazy"),
        ("layer 1", "LazyBatchNorm2d", "run one forward"),
    ),
]

DATA = [
    Wrong("no --data", measuring(data=None), ("no data", "--data imagefolder:DIR")),
    Wrong(
        "unknown data scheme",
        measuring(data="imagefoldr:images"),
        ("--data imagefoldr:images", "did you mean imagefolder:images?"),
    ),
    Wrong(
        "a folder without a scheme",
        measuring(data="images"),
        ("--data images", "is written imagefolder:images"),
    ),
    Wrong(
        "missing folder",
        measuring(data="imagefolder:imges"),
        ("--data imagefolder:imges", "does not exist"),
    ),
    Wrong(
        "empty folder",
        measuring(data="imagefolder:empty"),
        ("--data imagefolder:empty", "has no images", ".png"),
        lambda: Path("empty").mkdir(),
    ),
    Wrong(
        "unreadable image",
        measuring(data="imagefolder:images"),
        ("images/cat/broken.png", "cannot read", "--skip-bad"),
        one_bad_image,
    ),
    Wrong(
        "images of different sizes",
        measuring(data="imagefolder:images"),
        ("different sizes", "3×8×8", "3×9×5", "--transform"),
        images_of_two_sizes,
    ),
    Wrong(
        "missing npz file",
        measuring(data="npz:date.npz"),
        ("--data npz:date.npz", "no file date.npz", "did you mean data.npz?"),
    ),
    Wrong(
        "missing npz array",
        measuring("--data-arg", "split=test", data="npz:bad.npz"),
        ("--data npz:bad.npz", "x_test", "the archive has x_val", "--data-arg split=val"),
        arrays(x_val=pixels()),
    ),
    Wrong(
        "npz with objects",
        measuring(data="npz:bad.npz"),
        ("--data npz:bad.npz", "x is an array of Python objects", "astype"),
        arrays(x=np.array([[TouchesAFile()], [None]], dtype=object)),
    ),
    Wrong(
        "not an npz",
        measuring(data="npz:net.py"),
        ("--data npz:net.py", "is not an .npz archive", "numpy.savez"),
    ),
    Wrong(
        "unknown --data-arg",
        measuring("--data-arg", "splt=test"),
        ("--data-arg splt", "it accepts split"),
    ),
    Wrong(
        "unknown transform",
        measuring("--transform", "ResNet5O_Weights.IMAGENET1K_V2"),
        ("--transform ResNet5O_Weights", "did you mean ResNet50_Weights.IMAGENET1K_V2"),
    ),
    Wrong(
        "labels outside the classes",
        measuring(data="npz:bad.npz"),
        ("labels run from 0 to 9", "3 outputs", "--task other"),
        arrays(x=pixels(), y=np.arange(40) % 10),
    ),
    Wrong(
        "batches that end in an exception",
        measuring(data="net.py:breaks_off"),
        ("--data net.py:breaks_off", "disk is gone"),
    ),
    Wrong(
        "transform raising",
        measuring("--transform", "net.py:bad_transform"),
        ("sample", "ZeroDivisionError"),
    ),
    Wrong(
        "transform raising, always",
        measuring("--transform", "net.py:bad_transform", "--skip-bad"),
        ("ZeroDivisionError",),
    ),
    Wrong(
        "wrong number of channels",
        measuring(data="npz:bad.npz"),
        ("(32, 1, 8, 8)", "--data", "--transform", "--forward"),
        arrays(x=pixels(channels=1)),
    ),
    Wrong(
        "non-finite activations",
        measuring(checkpoint=None, model="net.py:Overflowing"),
        ("layer second", "batch 0", "infinite"),
    ),
    Wrong(
        "non-finite data",
        measuring(data="npz:bad.npz"),
        ("layer 1", "batch 0", "NaN"),
        arrays(x=FLOATS + np.float32("nan")),
    ),
]

OPTIONS = [
    Wrong("--batch-size 0", measuring("--batch-size", "0"), ("--batch-size", "greater", "got 0")),
    Wrong(
        "--batch-size x",
        measuring("--batch-size", "x"),
        ("--batch-size", "integer", "measure --help"),
    ),
    Wrong("--samples 0", measuring("--samples", "0"), ("--samples", "a positive number, or all")),
    Wrong(
        "--samples abc",
        measuring("--samples", "abc"),
        ("--samples", "'abc'", "or all"),
    ),
    Wrong("--seed -1", measuring("--seed", "-1"), ("--seed", "greater than or equal to 0")),
    Wrong(
        "--device nonsense",
        measuring("--device", "nonsense"),
        ("--device nonsense", "auto, cpu, cuda"),
    ),
    Wrong("--device cuda:99", measuring("--device", "cuda:99"), ("cuda:99", "--device cpu")),
    Wrong(
        "--device of another kind",
        measuring("--device", "meta"),
        ("--device meta", "auto, cpu, cuda"),
    ),
    Wrong(
        "--dtype float8",
        measuring("--dtype", "float8"),
        ("--dtype", "'float8'", "'float32', 'bf16' or 'fp16'"),
    ),
    Wrong(
        "--task nonsense",
        measuring("--task", "nonsense"),
        ("--task", "'nonsense'", "'auto', 'classification' or 'other'"),
    ),
    Wrong(
        "unknown option",
        measuring("--bach-size", "3"),
        ("--bach-size", "--batch-size"),
    ),
    Wrong("unknown verb", ["mesure", "good.pt"], ("mesure", "measure")),
    Wrong("no argument of report", ["report"], ("audit",)),
    Wrong(
        "--forward raising",
        measuring("--forward", "net.py:fails"),
        ("KeyError: 'pixel_values'", "batch 0", "(32, 3, 8, 8)", "--forward"),
    ),
    Wrong(
        "--forward of one argument",
        measuring("--forward", "net.py:one_argument"),
        ("--forward net.py:one_argument", "fn(model, batch)", "one_argument(model)"),
    ),
    Wrong(
        "--compare raising",
        measuring("--compare", "net.py:fails", "--task", "other"),
        ("--compare", "KeyError: 'pixel_values'", "net.py"),
    ),
    Wrong(
        "--output is a file",
        measuring("--output", "net.py"),
        ("--output net.py", "is a file", "give a folder"),
    ),
    Wrong(
        "--output below a file",
        measuring("--output", "net.py/results"),
        ("--output net.py/results", "net.py is a file", "give a folder"),
    ),
]

CONFIGS = [
    Wrong("missing", measuring("--config", "no.toml"), ("--config no.toml", "no such file")),
    Wrong("folder", measuring("--config", "images"), ("--config images", "give a TOML file")),
    Wrong(
        "not TOML",
        measuring("--config", "bad.toml"),
        ("bad.toml", "TOML", "line 2"),
        text("bad.toml", "seed = 1\nmodel: x\n"),
    ),
    Wrong(
        "unknown key",
        measuring("--config", "bad.toml"),
        ("bad.toml", "'bach_size'", "did you mean 'batch_size'?"),
        text("bad.toml", "bach_size = 4"),
    ),
    Wrong(
        "wrong type",
        measuring("--config", "bad.toml"),
        ("bad.toml", "'batch_size'", "integer", "'many'"),
        text("bad.toml", 'batch_size = "many"'),
    ),
    Wrong(
        "a switch where a number is needed",
        measuring("--config", "bad.toml"),
        ("bad.toml", "'batch_size'", "integer"),
        text("bad.toml", "batch_size = true"),
    ),
    Wrong(
        "pyproject without a table",
        measuring("--config", "pyproject.toml"),
        ("pyproject.toml", "tool.bnaudit"),
        text("pyproject.toml", "[tool.other]\nx = 1\n"),
    ),
    Wrong(
        "tool.bnaudit is no table",
        measuring(),
        ("pyproject.toml", "tool.bnaudit"),
        text("pyproject.toml", "[tool]\nbnaudit = 3\n"),
    ),
    Wrong(
        "discovered one is wrong",
        measuring(),
        ("bnaudit.toml", "'sed'", "did you mean 'seed'?"),
        text("bnaudit.toml", "sed = 4"),
    ),
]

REPORTS = [
    Wrong("missing", ["report", "results"], ("results", "No such file")),
    Wrong(
        "folder without results",
        ["report", "images"],
        ("images/audit.json", "No such file"),
    ),
    Wrong(
        "damaged",
        ["report", "audit.json"],
        ("audit.json", "not JSON"),
        text("audit.json", '{"schema": 1, "lay'),
    ),
    Wrong(
        "not an Audit",
        ["report", "audit.json"],
        ("audit.json", "not an Audit", "`schema`"),
        text("audit.json", "[1, 2]"),
    ),
    Wrong(
        "too deeply nested",
        ["report", "audit.json"],
        ("audit.json", "not JSON"),
        text("audit.json", "[" * 100_000),
    ),
    Wrong(
        "other schema",
        ["report", "audit.json"],
        ("audit.json", "schema 99", "measure anew"),
        text("audit.json", json.dumps({"schema": 99})),
    ),
    Wrong(
        "field missing",
        ["report", "audit.json"],
        ("audit.json", "field versions"),
        text("audit.json", json.dumps({"schema": 1})),
    ),
]

TABLE = [
    pytest.param(
        wrong,
        id=f"{group}: {wrong.name}",
    )
    for group, wrongs in (
        ("checkpoint", CHECKPOINTS),
        ("model", MODELS),
        ("data", DATA),
        ("option", OPTIONS),
        ("config", CONFIGS),
        ("report", REPORTS),
    )
    for wrong in wrongs
]


@pytest.mark.filterwarnings("ignore:.torch.jit")  # it makes the TorchScript file
@pytest.mark.parametrize("wrong", TABLE)
def test_a_wrong_request_is_told_in_one_line_and_changes_nothing(
    folder: Path, bnaudit: Run, wrong: Wrong
) -> None:
    wrong.prepare()
    before = contents(folder)
    ran = bnaudit(*wrong.args)
    assert (ran.code, ran.out) == (2, ""), ran.err
    lines = [line for line in ran.err.splitlines() if not line.startswith("using settings")]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("error: ")
    missing = [words for words in wrong.says if words not in lines[0]]
    assert not missing, lines[0]
    assert contents(folder) == before
