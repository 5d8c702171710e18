"""`bnaudit leakage`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bnaudit.cli import options
from bnaudit.cli.options import DATA, OUT, RUN, option

BATCHES = "Batches"

NO_SETTINGS = ("config", "json", "show_all", "by", "values", "group_size", "draws")

EPILOG = """\
Examples:

bnaudit leakage sample_models/healthy.pt --config sample_models/bnaudit.toml --data-arg split=train

bnaudit leakage ckpt.pth --model torchvision:resnet50 --data imagefolder:train --transform imagenet --train-batch-size 64

bnaudit leakage ckpt.pth --model net.py:model --data data.py:train --by class --by data.py:patient --values 16,64

bnaudit leakage ckpt.pth ... --train-batch-size 64 --group-size 8 --json | jq .findings
"""  # noqa: E501


def leakage(
    checkpoint: options.Checkpoint = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    checkpoint_key: options.CheckpointKey = None,
    allow_mismatch: options.AllowMismatch = None,
    trust_pickle: options.TrustPickle = None,
    data: options.Data = None,
    data_arg: options.DataArg = None,
    transform: options.Transform = None,
    samples: Annotated[
        str | None,
        option(
            metavar="N|all",
            help="A seeded random subset of this size, held in memory. (default: 1000)",
            panel=DATA,
        ),
    ] = None,
    skip_bad: options.SkipBad = None,
    by: Annotated[
        list[str] | None,
        option(
            metavar="WHAT",
            help="What belongs together: class, source (the file's folder), order (of the files, "
            "or the loader's), or path/file.py:fn, called with a batch, which gives the group of "
            "each sample; may be repeated. Layers are probed by class. (default: class, source, "
            "order)",
            panel=BATCHES,
        ),
    ] = None,
    values: Annotated[
        str | None,
        option(
            metavar="A,B,…",
            help="Sizes of the normalisation batch, separated by commas. (default: the training "
            "batch size)",
            panel=BATCHES,
        ),
    ] = None,
    group_size: Annotated[
        int | None,
        option(
            help="Samples that are normalised together inside a batch, as ghost batches and ranks "
            "do.",
            panel=BATCHES,
        ),
    ] = None,
    draws: Annotated[
        int | None,
        option(
            help="Shuffles, and random batches of each group, that figures are the mean of. "
            "(default: 4)",
            panel=BATCHES,
        ),
    ] = None,
    train_batch_size: Annotated[
        int | None,
        option(
            help="The mini-batch size that the model was trained with, per device. (default: the "
            "batch size)",
            panel=BATCHES,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, option(help="Samples a forward, at least. (default: 32)", panel=RUN)
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    channels_last: options.ChannelsLast = None,
    workers: options.Workers = None,
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
    show_all: options.ShowAll = False,
) -> None:
    """Does a sample's output depend on its batch mates?

    Under mini-batch statistics the same samples are put into shuffled batches, and into batches of
    one class, of one source, in the files' order: a model that does better there has learned to
    read labels from the rest of the batch (Wu & Johnson 2021, section 6). Linear probes tell which
    layers carry it (pip install 'bnaudit[leakage]'). In eval mode nothing may depend on the batch
    at all: what does is an error. Take the training data: they tell most.
    """
    given = {k: v for k, v in locals().items() if k not in NO_SETTINGS}
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from

    messages = screen.messages()
    settings = settings_from(given, config, messages)
    sizes = _sizes(values)
    folder = settings.output
    if folder is None and not json:
        name = settings.checkpoint.stem if settings.checkpoint else "model"
        folder = Path("bnaudit-results") / name
    from bnaudit.report.files import check_folder
    from bnaudit.report.leakage import print_leakage
    from bnaudit.report.leakage_files import write_leakage

    if folder is not None:
        check_folder(folder)
    with messages.status("loading") if messages.is_terminal else screen.quiet():
        from bnaudit.verbs.leakage_file import leakage_of
    asked: dict[str, Any] = {"by": by, "values": sizes, "group_size": group_size, "draws": draws}
    found = leakage_of(settings, **asked, progress=partial(screen.progress, messages))
    written = write_leakage(found, folder, plots=settings.plots) if folder is not None else []
    if json:
        typer.echo(found.to_json(), nl=False)
    console = messages if json else screen.tables()
    if not json or messages.is_terminal:
        print_leakage(found, console, all_layers=show_all)
        screen.print_written(console, written)


def _sizes(values: str | None) -> tuple[int, ...]:
    """`16,64` as numbers. Raises `InputError`."""
    from bnaudit.errors import InputError

    parts = [] if values is None else [part.strip() for part in values.split(",") if part.strip()]
    if values is not None and not (parts and all(part.isdecimal() for part in parts)):
        raise InputError(
            f"--values {values}: give whole numbers separated by commas, such as 16,64"
        )
    return tuple(int(part) for part in parts)
