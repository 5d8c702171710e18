"""`bnaudit measure`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bnaudit.cli import options
from bnaudit.cli.options import OUT, option

EPILOG = """\
Examples:

bnaudit measure sample_models/small_batch.pt --config sample_models/bnaudit.toml

bnaudit measure ckpt.pth --model torchvision:resnet50 --data imagefolder:val --transform ResNet50_Weights.IMAGENET1K_V2

bnaudit measure ckpt.pth --model nets.py:resnet20 --data cifar10:data --transform nets.py:transform --samples all

bnaudit measure model.safetensors --model timm:resnet26d --model-arg num_classes=10 --data npz:val.npz

bnaudit measure ckpt.pth ... --data imagefolder:production --train-data imagefolder:train

torchrun --nproc-per-node 8 -m bnaudit measure ckpt.pth ... --samples all

bnaudit measure ... --threshold BN101.shift=0.2 --ignore BN0 --json | jq .findings
"""  # noqa: E501


def measure(
    checkpoint: options.Checkpoint = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    checkpoint_key: options.CheckpointKey = None,
    allow_mismatch: options.AllowMismatch = None,
    trust_pickle: options.TrustPickle = None,
    data: options.Data = None,
    data_arg: options.DataArg = None,
    transform: options.Transform = None,
    samples: Annotated[str | None, options.samples_option(2000)] = None,
    skip_bad: options.SkipBad = None,
    train_data: options.TrainData = None,
    train_data_arg: options.TrainDataArg = None,
    batch_size: options.BatchSize = None,
    train_batch_size: options.TrainBatchSize = None,
    attribute: options.Attribute = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    channels_last: options.ChannelsLast = None,
    workers: options.Workers = None,
    decode: options.Decode = None,
    rank_timeout: options.RankTimeout = None,
    seed: options.Seed = None,
    forward: options.Forward = None,
    task: options.Task = None,
    compare: options.Compare = None,
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
            help="Print the Audit on stdout and nothing else; files only with --output.",
            rich_help_panel=OUT,
        ),
    ] = False,
    show_all: options.ShowAll = False,
) -> None:
    """Measure every BatchNorm layer of a checkpoint on data.

    How far the running statistics are from what each layer really sees (estimation shift, with
    error bars), what normalising by mini-batches would change, what that does to the outputs, and
    the findings: what is wrong, in which layers, and what to do (`bnaudit explain CODE`). The model
    is never modified, and neither is the checkpoint.
    """
    given = {k: v for k, v in locals().items() if k not in ("config", "json", "show_all")}
    _run(given, config, as_json=json, show_all=show_all)


def _run(given: dict[str, Any], config: Path | None, *, as_json: bool, show_all: bool) -> None:
    from bnaudit.cli import screen
    from bnaudit.cli.launcher import launched
    from bnaudit.cli.settings import settings_from

    messages = screen.messages()
    settings = settings_from(given, config, messages)
    folder = settings.output
    if folder is None and not as_json:
        name = settings.checkpoint.stem if settings.checkpoint else "model"
        folder = Path("bnaudit-results") / name

    from bnaudit.verbs.policy import policy_of

    policy = policy_of(settings)
    from bnaudit.report.files import check_folder, write_results
    from bnaudit.report.terminal import print_audit

    with launched(settings.rank_timeout) as ranks:
        if folder is not None and ranks.is_first:
            check_folder(folder)
        with messages.status("loading") if messages.is_terminal else screen.quiet():
            from bnaudit.verbs.measure import DEFAULT_SAMPLES
            from bnaudit.verbs.measure_prepared import measure_prepared
            from bnaudit.verbs.prepare import prepare

            parts = prepare(settings, DEFAULT_SAMPLES, ranks)
        audit = measure_prepared(parts, settings, policy, partial(screen.progress, messages))
        if not ranks.is_first:
            return
        written = write_results(audit, folder, plots=settings.plots) if folder is not None else []
    if as_json:
        typer.echo(audit.to_json(), nl=False)
    console = messages if as_json else screen.tables()
    if not as_json or messages.is_terminal:
        print_audit(audit, console, all_layers=show_all)
        screen.print_written(console, written)
