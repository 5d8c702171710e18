"""`bnaudit sweep`: the network over the values of one quantity."""

from __future__ import annotations

from typing import Annotated

import typer

from bnaudit.cli import options
from bnaudit.cli.command import Command
from bnaudit.cli.options import DATA, RUN, option
from bnaudit.cli.shared_options import General, with_options_of
from bnaudit.cli.sweep_options import SWEEP, held_out, inputs, running, values_option
from bnaudit.cli.sweep_run import run_sweep

sweep = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Try the values of one quantity: batch size, samples, prior, example weight, momentum.",
)


@sweep.command(
    "batch-size",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep batch-size sample_models/small_batch.pt --config sample_models/bnaudit.toml --train-data npz:sample_models/digits.npz --train-data-arg split=train

bnaudit sweep batch-size ckpt.pth --model torchvision:resnet50 --data imagefolder:val --transform imagenet --values 2,4,8,16,32,64,128
""",  # noqa: E501
)
@with_options_of(inputs, running)
def batch_size(
    general: General,
    *,
    values: Annotated[str | None, values_option("2 to 128", "Mini-batch sizes")] = None,
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
    run_sweep("batch-size", {**general, **own}, values)


@sweep.command(
    "samples",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep samples sample_models/lagging_ema.pt --config sample_models/bnaudit.toml --data-arg split=train --verify npz:sample_models/digits.npz --verify-arg split=test

bnaudit sweep samples ckpt.pth --model torchvision:resnet50 --data imagefolder:train --verify imagefolder:val --transform imagenet --values 16,64,256,1024 --draws 3
""",  # noqa: E501
)
@with_options_of(inputs, held_out, running)
def samples(
    general: General,
    *,
    values: Annotated[
        str | None, values_option("16, 32, 64, … up to all", "Numbers of calibration samples")
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
    run_sweep("samples", {**general, "samples": samples}, values, draws=draws)


@sweep.command(
    "prior",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep prior sample_models/healthy.pt --config sample_models/bnaudit.toml --transform sample_models/digits.py:brighter --samples 16

bnaudit sweep prior ckpt.pth --model torchvision:resnet50 --data imagefolder:site --transform imagenet --samples 32 --values 0,8,32,128,512
""",  # noqa: E501
)
@with_options_of(inputs, held_out, running)
def prior(
    general: General,
    *,
    values: Annotated[
        str | None, values_option("0, 8, 16, … 512", "Strengths N of the prior, in samples")
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
    run_sweep("prior", {**general, "samples": samples}, values)


@sweep.command(
    "example-weight",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep example-weight sample_models/small_batch.pt --config sample_models/bnaudit.toml

bnaudit sweep example-weight ckpt.pth --model torchvision:resnet50 --data imagefolder:val --transform imagenet --values 0,0.05,0.1,0.2
""",  # noqa: E501
)
@with_options_of(inputs, running)
def example_weight(
    general: General,
    *,
    values: Annotated[
        str | None,
        values_option("0, 0.02, … 0.5", "Weights of the example's own statistics, 0 to 1"),
    ] = None,
    samples: Annotated[str | None, options.samples_option(2000)] = None,
) -> None:
    """Mix each example's own statistics into the estimates, with weight a.

    Inference example weighing (Summers & Dinneen 2020). The best a is chosen on one half of the
    labelled data, and its gain is measured on the other; `bnaudit.nn.convert(model,
    "example-weighing", alpha=a)` gives the model that does it.
    """
    run_sweep("example-weight", {**general, "samples": samples}, values)


@sweep.command(
    "momentum",
    cls=Command,
    epilog="""\
Examples:

bnaudit sweep momentum sample_models/lagging_ema.pt --config sample_models/bnaudit.toml --data-arg split=train --verify npz:sample_models/digits.npz --verify-arg split=test

bnaudit sweep momentum ckpt.pth --model torchvision:resnet50 --data imagefolder:train --verify imagefolder:val --transform imagenet --samples all --values 0.3,0.1,0.03
""",  # noqa: E501
)
@with_options_of(inputs, held_out, running)
def momentum(
    general: General,
    *,
    values: Annotated[
        str | None, values_option("1, 0.3, 0.1, … 0.001", "Momenta, above 0 to 1")
    ] = None,
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
    run_sweep("momentum", {**general, **own}, values)
