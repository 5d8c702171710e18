"""The options that several commands have: declared once, with their help and panels.

None stands for "not given", so that a configuration file may say it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MODEL = "Model and checkpoint"
DATA = "Data"
RUN = "How to run"
FINDINGS = "Findings"
OUT = "Output"


def option(*names: str, panel: str, help: str, metavar: str | None = None) -> Any:  # noqa: A002
    """An option without a default of its own: the settings have it."""
    return typer.Option(
        *names, metavar=metavar, help=help, rich_help_panel=panel, show_default=False
    )


def samples_option(default: int) -> Any:
    """`--samples`, whose default is the verb's."""
    return option(
        metavar="N|all",
        help=f"A seeded random subset of this size. (default: {default})",
        panel=DATA,
    )


Checkpoint = Annotated[
    Path | None,
    typer.Argument(
        help="The weights: .pt, .pth, .th, .ckpt, .bin or .safetensors. None: the model's own.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    option(
        help="torchvision:NAME, timm:NAME, hf:DIR, path/file.py:factory or package.module:factory. "
        "Nothing is downloaded.",
        panel=MODEL,
    ),
]
ModelArg = Annotated[
    list[str] | None,
    option(
        metavar="KEY=VALUE",
        help="An argument of the model factory; may be repeated.",
        panel=MODEL,
    ),
]
CheckpointKey = Annotated[
    str | None,
    option(
        help="Where in the file the weights are, e.g. state_dict_ema. Default: found.",
        panel=MODEL,
    ),
]
AllowMismatch = Annotated[
    bool | None,
    option(
        "--allow-mismatch/--no-allow-mismatch",
        help="Go on when weights and model differ, and say what kept its initial value.",
        panel=MODEL,
    ),
]
TrustPickle = Annotated[
    bool | None,
    option(
        "--trust-pickle",
        help="Unpickle everything in the checkpoint, which runs the code it names.",
        panel=MODEL,
    ),
]
Data = Annotated[
    str | None,
    option(
        help="imagefolder:DIR, tar:PATTERN, parquet:PATTERN, cifar10:DIR, npz:FILE, or "
        "path/file.py:factory for a Dataset, a DataLoader or any iterable of batches.",
        panel=DATA,
    ),
]
DataArg = Annotated[
    list[str] | None,
    option(
        metavar="KEY=VALUE",
        help="An argument of the data, e.g. split=train; may be repeated.",
        panel=DATA,
    ),
]
Transform = Annotated[
    str | None,
    option(
        help="A torchvision weights name, imagenet, hf:DIR, or path/file.py:factory. Default: "
        "RGB/255; with --model hf:DIR the folder's own.",
        panel=DATA,
    ),
]
SkipBad = Annotated[
    bool | None,
    option(
        "--skip-bad/--no-skip-bad",
        help="Leave unreadable samples out, and list them.",
        panel=DATA,
    ),
]
TrainData = Annotated[
    str | None,
    option(
        metavar="SPEC",
        help="The data that the model was trained on, as for --data: tells whether the "
        "estimates are wrong or the data moved.",
        panel=DATA,
    ),
]
TrainDataArg = Annotated[
    list[str] | None,
    option(
        metavar="KEY=VALUE",
        help="An argument of the training data; may be repeated.",
        panel=DATA,
    ),
]
TrainBatchSize = Annotated[
    int | None,
    option(
        help="The mini-batch size at which train and inference are compared; take the one the "
        "model was trained with, per device. (default: the batch size)",
        panel=RUN,
    ),
]
Attribute = Annotated[
    str | None,
    option(
        metavar="N|all|none",
        help="Where the shift comes from, on a random subset of this size. (default: 512)",
        panel=RUN,
    ),
]
Compare = Annotated[
    str | None,
    option(
        help="path/file.py:fn, called as fn(deployed_output, other_output), for outputs that "
        "are no class scores.",
        panel=RUN,
    ),
]
BatchSize = Annotated[int | None, option(help="Samples a forward. (default: 32)", panel=RUN)]
Device = Annotated[
    str | None, option(help="auto, cpu, cuda, cuda:1 or mps. (default: auto)", panel=RUN)
]
Dtype = Annotated[
    str | None,
    option(help="float32, or autocast to bf16 or fp16. (default: float32)", panel=RUN),
]
ChannelsLast = Annotated[
    bool | None,
    option(
        "--channels-last/--no-channels-last",
        help="Run in the channels_last memory format.",
        panel=RUN,
    ),
]
Workers = Annotated[
    str | None,
    option(
        metavar="N|auto",
        help="Processes that load data. (default: auto, by the cores and what loading takes)",
        panel=RUN,
    ),
]
Decode = Annotated[
    str | None,
    option(
        metavar="cpu|gpu",
        help="Where images are decoded and transformed: gpu for JPEGs, on a CUDA device. "
        "(default: cpu)",
        panel=RUN,
    ),
]
RankTimeout = Annotated[
    int | None,
    option(
        metavar="SECONDS",
        help="Under torchrun: how long one rank waits for another. (default: 1800)",
        panel=RUN,
    ),
]
Seed = Annotated[int | None, option(help="Of the subset and its order. (default: 0)", panel=RUN)]
Forward = Annotated[
    str | None,
    option(
        help="path/file.py:fn, called as fn(model, batch) where model(batch[0]) will not do.",
        panel=RUN,
    ),
]
Task = Annotated[
    str | None,
    option(
        help="auto, classification (outputs N×K), or other. (default: auto)",
        panel=RUN,
    ),
]
Threshold = Annotated[
    list[str] | None,
    option(
        metavar="CODE.NAME=VALUE",
        help="A threshold of a finding, e.g. BN101.shift=0.2 (bnaudit explain BN101 names them); "
        "may be repeated.",
        panel=FINDINGS,
    ),
]
Select = Annotated[
    list[str] | None,
    option(
        metavar="CODE",
        help="Only findings with this code, or whose code begins so (BN1); may be repeated.",
        panel=FINDINGS,
    ),
]
Ignore = Annotated[
    list[str] | None,
    option(
        metavar="CODE",
        help="No findings with this code, or whose code begins so; may be repeated.",
        panel=FINDINGS,
    ),
]
Config = Annotated[
    Path | None,
    option(
        help="A TOML file with the same names. Default: bnaudit.toml, or the table "
        "tool.bnaudit in pyproject.toml, where one stands. The command line wins; --no-skip-bad "
        "and the like switch off what the file switches on.",
        panel=OUT,
    ),
]
Plots = Annotated[
    bool | None,
    option(
        "--plots/--no-plots",
        help="Whether to draw the plots. (default: plots)",
        panel=OUT,
    ),
]
ShowAll = Annotated[
    bool,
    typer.Option("--all", help="Show every layer of a long table.", rich_help_panel=OUT),
]
