"""The options that every sweep has, in functions that only have a signature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bnaudit.cli import options
from bnaudit.cli.options import OUT, option

SWEEP = "Sweep"
VERIFY = "Held-out data"


def values_option(default: str, what: str) -> Any:
    """`--values`, whose default and meaning are the sweep's."""
    return option(
        "--values",
        metavar="A,B,…",
        help=f"{what}, separated by commas. (default: {default})",
        panel=SWEEP,
    )


def inputs(
    checkpoint: options.Checkpoint = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    checkpoint_key: options.CheckpointKey = None,
    allow_mismatch: options.AllowMismatch = None,
    trust_pickle: options.TrustPickle = None,
    data: options.Data = None,
    data_arg: options.DataArg = None,
    transform: options.Transform = None,
    skip_bad: options.SkipBad = None,
) -> None:
    """What every sweep works on."""


def running(
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    channels_last: options.ChannelsLast = None,
    workers: options.Workers = None,
    decode: options.Decode = None,
    seed: options.Seed = None,
    forward: options.Forward = None,
    task: options.Task = None,
    threshold: options.Threshold = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    config: options.Config = None,
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            help="Folder of the results. (default: bnaudit-results/NAME)",
            panel=OUT,
        ),
    ] = None,
    plots: options.Plots = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the result on stdout and nothing else; files only with --output.",
            rich_help_panel=OUT,
        ),
    ] = False,
) -> None:
    """How every sweep runs, and where its results go."""


def held_out(
    verify: Annotated[
        str | None,
        option(
            metavar="SPEC",
            help="Data, as for --data, on which the new statistics are tried.",
            panel=VERIFY,
        ),
    ] = None,
    verify_arg: Annotated[
        list[str] | None,
        option(
            metavar="KEY=VALUE",
            help="An argument of the held-out data; may be repeated.",
            panel=VERIFY,
        ),
    ] = None,
    verify_split: Annotated[
        float | None,
        option(
            metavar="F",
            help="Without --verify: the share of --data that is held out. (default: 0.5)",
            panel=VERIFY,
        ),
    ] = None,
    verify_samples: Annotated[
        str | None,
        option(
            metavar="N|all",
            help="A seeded random subset of this size. (default: 2000)",
            panel=VERIFY,
        ),
    ] = None,
) -> None:
    """Where new statistics are tried, for sweeps that compute some."""
