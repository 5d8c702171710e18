"""`bnaudit inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bnaudit.cli import options
from bnaudit.cli.options import FINDINGS, OUT, option

EPILOG = """\
Examples:

bnaudit inspect sample_models/lagging_ema.pt --against sample_models/healthy.pt

bnaudit inspect ckpt.pth --checkpoint-key state_dict_ema --eps 1e-3

bnaudit inspect finetuned.pth --against pretrained.pth

bnaudit inspect merged.pth --against first.pth --against second.pth

bnaudit inspect model.safetensors --threshold BN012.multiple_of_eps=10 --ignore BN018

bnaudit inspect ckpt.pth --json | jq '.findings[] | {code, layers, sentence}'

What a finding means, and what to do about it: bnaudit explain CODE
"""

COMMAND_LINE_ONLY = ("config", "json", "show_all")


def inspect(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="A file of torch.save (.pt, .pth, .th, .ckpt, .bin; state dicts, training "
            "checkpoints, whole pickled models) or .safetensors.",
            show_default=False,
        ),
    ] = None,
    checkpoint_key: options.CheckpointKey = None,
    against: Annotated[
        list[Path] | None,
        option(
            metavar="PARENT",
            help="A checkpoint that this one comes from: what happened between the two, layer by "
            "layer. May be repeated for one that was merged or averaged of several. "
            "--checkpoint-key names the place in it too, where it has that one.",
            panel=FINDINGS,
        ),
    ] = None,
    eps: Annotated[
        float | None,
        option(
            help="Of the model's BatchNorm layers; only a pickled model tells it. (default: 1e-5)",
            panel=FINDINGS,
        ),
    ] = None,
    threshold: options.Threshold = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    config: options.Config = None,
    output: Annotated[
        Path | None,
        option("-o", "--output", help="Also write inspection.json into this folder.", panel=OUT),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the Inspection on stdout and nothing else.",
            rich_help_panel=OUT,
        ),
    ] = False,
    show_all: options.ShowAll = False,
) -> None:
    """Look at a checkpoint's BatchNorm layers: no data, no model code, a second.

    Layers are found by the names of their tensors. The statistics in figures and histograms, and
    what is wrong with them by themselves: never updated, not warmed up, broken, dead channels, in
    too small a number format. Nothing in the file is run or changed, and of a large file only the
    statistics are read; with --against, the weights too, piece by piece.
    """
    given = {k: v for k, v in locals().items() if k not in COMMAND_LINE_ONLY}
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from
    from bnaudit.errors import InputError
    from bnaudit.report.files import check_folder
    from bnaudit.report.inspection import print_inspection
    from bnaudit.report.inspection_files import write_inspection
    from bnaudit.verbs.inspect import inspect as inspect_file
    from bnaudit.verbs.policy import policy_of

    messages = screen.messages()
    settings = settings_from(given, config, messages)
    if settings.checkpoint is None:
        raise InputError("no checkpoint: name the file to inspect")
    if settings.output is not None:
        check_folder(settings.output)
    inspection = inspect_file(
        settings.checkpoint,
        key=settings.checkpoint_key,
        eps=settings.eps,
        against=settings.against,
        policy=policy_of(settings),
    )
    written = []
    if settings.output is not None:
        written = [write_inspection(inspection, settings.output)]
    if json:
        typer.echo(inspection.to_json(), nl=False)
    console = messages if json else screen.tables()
    if not json or messages.is_terminal:
        print_inspection(inspection, console, all_layers=show_all)
        screen.print_written(console, written)
