"""`bnaudit sweep`: the network over the values of one quantity."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bnaudit.cli import options
from bnaudit.cli.command import Command
from bnaudit.cli.options import DATA, OUT, RUN, option
from bnaudit.cli.shared_options import General, with_options_of

if TYPE_CHECKING:
    from bnaudit.results.sweep import Kind

SWEEP = "Sweep"
VERIFY = "Held-out data"

NO_SETTINGS = ("config", "json")

sweep = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Try the values of one quantity: batch size, samples, prior, example weight, momentum.",
)


def _values(default: str, what: str) -> Any:
    return option(
        "--values",
        metavar="A,B,…",
        help=f"{what}, separated by commas. (default: {default})",
        panel=SWEEP,
    )


def _inputs(
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


def _running(
    batch_size: options.BatchSize = None,
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
            help="Print the Sweep on stdout and nothing else; files only with --output.",
            rich_help_panel=OUT,
        ),
    ] = False,
) -> None:
    """How every sweep runs, and where its results go."""


def _held_out(
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


@sweep.command(
    "batch-size",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep batch-size sample_models/small_batch.pt --config sample_models/bnaudit.toml --train-data npz:sample_models/digits.npz --train-data-arg split=train

bnaudit sweep batch-size ckpt.pth --model torchvision:resnet50 --data imagefolder:val --transform imagenet --values 2,4,8,16,32,64,128
""",  # noqa: E501
)
@with_options_of(_inputs, _running)
def batch_size(
    general: General,
    *,
    values: Annotated[str | None, _values("2 to 128", "Mini-batch sizes")] = None,
    samples: Annotated[str | None, options.samples_option(2000)] = None,
    train_data: Annotated[
        str | None,
        option(
            metavar="SPEC",
            help="The data that the model was trained on, as for --data: they tell at which "
            "size it was trained.",
            panel=DATA,
        ),
    ] = None,
    train_data_arg: options.TrainDataArg = None,
    train_batch_size: Annotated[
        int | None,
        option(help="The mini-batch size it was trained with, where you know it.", panel=RUN),
    ] = None,
) -> None:
    """Normalise by mini-batches of each size, against the estimates and exact statistics.

    Accuracy, loss and agreement with the deployed network at each size, and how far mini-batch
    statistics are from the estimates, layer by layer. With training data it says at which size the
    model was probably trained (Wu & Johnson 2021, section 4), and how much a larger one gives.
    """
    own = {
        "samples": samples,
        "train_data": train_data,
        "train_data_arg": train_data_arg,
        "train_batch_size": train_batch_size,
    }
    _run("batch-size", {**general, **own}, values)


@sweep.command(
    "samples",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep samples sample_models/lagging_ema.pt --config sample_models/bnaudit.toml --data-arg split=train --verify npz:sample_models/digits.npz --verify-arg split=test

bnaudit sweep samples ckpt.pth --model torchvision:resnet50 --data imagefolder:train --verify imagefolder:val --transform imagenet --values 16,64,256,1024 --draws 3
""",  # noqa: E501
)
@with_options_of(_inputs, _held_out, _running)
def samples(
    general: General,
    *,
    values: Annotated[
        str | None, _values("16, 32, 64, … up to all", "Numbers of calibration samples")
    ] = None,
    draws: Annotated[
        int | None,
        option(help="Random subsets of each size. (default: 5)", panel=SWEEP),
    ] = None,
    samples: Annotated[
        str | None,
        option(
            metavar="N|all",
            help="The samples of --data that subsets are drawn from. (default: 1000)",
            panel=DATA,
        ),
    ] = None,
) -> None:
    """Recalibrate on more and more samples: how many suffice?

    Exact statistics of several random subsets of each size, tried on held-out data: accuracy, loss,
    and the estimation shift that is left (residual), with intervals over the draws (Wu & Johnson
    2021, section 3).
    """
    _run("samples", {**general, "samples": samples}, values, draws=draws)


@sweep.command(
    "prior",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep prior sample_models/healthy.pt --config sample_models/bnaudit.toml --transform sample_models/digits.py:brighter --samples 16

bnaudit sweep prior ckpt.pth --model torchvision:resnet50 --data imagefolder:site --transform imagenet --samples 32 --values 0,8,32,128,512
""",  # noqa: E501
)
@with_options_of(_inputs, _held_out, _running)
def prior(
    general: General,
    *,
    values: Annotated[
        str | None, _values("0, 8, 16, … 512", "Strengths N of the prior, in samples")
    ] = None,
    samples: Annotated[
        str | None,
        option(
            metavar="N|all",
            help="Calibration samples, the same for every strength. (default: 1000)",
            panel=DATA,
        ),
    ] = None,
) -> None:
    """Mix new statistics with the checkpoint's own, which count as N samples.

    Weight n/(N + n) on the statistics of n calibration samples (Schneider et al. 2020), as
    `bnaudit recalibrate --prior N` does it. The best N is chosen on one half of the held-out data,
    and its gain is measured on the other.
    """
    _run("prior", {**general, "samples": samples}, values)


@sweep.command(
    "example-weight",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep example-weight sample_models/small_batch.pt --config sample_models/bnaudit.toml

bnaudit sweep example-weight ckpt.pth --model torchvision:resnet50 --data imagefolder:val --transform imagenet --values 0,0.05,0.1,0.2
""",  # noqa: E501
)
@with_options_of(_inputs, _running)
def example_weight(
    general: General,
    *,
    values: Annotated[
        str | None, _values("0, 0.01, … 1", "Weights of the example's own statistics, 0 to 1")
    ] = None,
    samples: Annotated[str | None, options.samples_option(2000)] = None,
) -> None:
    """Mix each example's own statistics into the estimates, with weight a.

    Inference example weighing (Summers & Dinneen 2020). The best a is chosen on one half of the
    labelled data, and its gain is measured on the other; `bnaudit.nn.convert(model,
    "example-weighing", alpha=a)` gives the model that does it.
    """
    _run("example-weight", {**general, "samples": samples}, values)


@sweep.command(
    "momentum",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep momentum sample_models/lagging_ema.pt --config sample_models/bnaudit.toml --data-arg split=train --verify npz:sample_models/digits.npz --verify-arg split=test

bnaudit sweep momentum ckpt.pth --model torchvision:resnet50 --data imagefolder:train --verify imagefolder:val --transform imagenet --samples all --values 0.3,0.1,0.03
""",  # noqa: E501
)
@with_options_of(_inputs, _held_out, _running)
def momentum(
    general: General,
    *,
    values: Annotated[str | None, _values("1, 0.3, 0.1, … 0.001", "Momenta, above 0 to 1")] = None,
    samples: Annotated[
        str | None,
        option(
            metavar="N|all",
            help="Calibration samples, the same for every momentum. (default: 1000)",
            panel=DATA,
        ),
    ] = None,
    train_batch_size: Annotated[
        int | None,
        option(help="Mini-batch size of the average. (default: the batch size)", panel=RUN),
    ] = None,
) -> None:
    """Let the framework's moving average run with each momentum: where does it meet exact?

    One pass in mini-batches serves all momenta. Too small a momentum lags behind, too large a one
    follows the last mini-batches; exact statistics do neither (Wu & Johnson 2021, section 3).
    """
    own = {"samples": samples, "train_batch_size": train_batch_size}
    _run("momentum", {**general, **own}, values)


def _run(kind: Kind, given: dict[str, Any], values: str | None, draws: int | None = None) -> None:
    """Resolve the settings, sweep, write, print."""
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from

    messages, as_json = screen.messages(), given["json"]
    general = {name: value for name, value in given.items() if name not in NO_SETTINGS}
    settings = settings_from(general, given["config"], messages)

    from bnaudit.verbs.sweep_values import parsed_values

    wanted = parsed_values(kind, values) if values is not None else None
    folder = settings.output
    if folder is None and not as_json:
        name = settings.checkpoint.stem if settings.checkpoint else "model"
        folder = Path("bnaudit-results") / name

    from bnaudit.report.files import check_folder
    from bnaudit.report.sweep import print_sweep
    from bnaudit.report.sweep_files import write_sweep
    from bnaudit.verbs.policy import policy_of

    policy_of(settings)  # what it cannot be is told before the work
    if folder is not None:
        check_folder(folder)
    with messages.status("loading") if messages.is_terminal else screen.quiet():
        from bnaudit.verbs.sweep_file import sweep_file
    result = sweep_file(
        kind,
        settings,
        wanted,
        draws=draws,
        progress=partial(screen.progress, messages),
        say=partial(screen.say, messages),
    )
    written = write_sweep(result, folder, plots=settings.plots) if folder is not None else []
    if as_json:
        typer.echo(result.to_json(), nl=False)
    if not as_json or messages.is_terminal:
        console = messages if as_json else screen.tables()
        print_sweep(result, console)
        screen.print_written(console, written)
