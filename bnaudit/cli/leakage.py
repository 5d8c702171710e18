"""`bnaudit leakage`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bnaudit.cli import options
from bnaudit.cli.options import option
from bnaudit.cli.shared_options import General, with_options_of
from bnaudit.cli.sweep_options import inputs, running

BATCHES = "Batches"

NO_SETTINGS = ("config", "json")

EPILOG = """\
Examples:

bnaudit leakage sample_models/healthy.pt --config sample_models/bnaudit.toml --data-arg split=train

bnaudit leakage ckpt.pth --model torchvision:resnet50 --data imagefolder:train --transform imagenet --train-batch-size 64

bnaudit leakage ckpt.pth --model net.py:model --data data.py:train --by class --by data.py:patient --values 16,64

bnaudit leakage ckpt.pth ... --train-batch-size 64 --group-size 8 --json | jq .findings
"""  # noqa: E501


@with_options_of(inputs, running)
def leakage(
    general: General,
    *,
    samples: Annotated[str | None, options.samples_option(1000)] = None,
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
    show_all: options.ShowAll = False,
) -> None:
    """Does a sample's output depend on its batch mates?

    Under mini-batch statistics the same samples are put into shuffled batches, and into batches of
    one class, of one source, in the files' order: a model that does better there has learned to
    read labels from the rest of the batch (Wu & Johnson 2021, section 6). Linear probes tell which
    layers carry it (pip install 'bnaudit[leakage]'). In eval mode nothing may depend on the batch
    at all: what does is an error. Take the training data: they tell most.
    """
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from

    messages, as_json = screen.messages(), general["json"]
    given = {name: value for name, value in general.items() if name not in NO_SETTINGS}
    given |= {"samples": samples, "train_batch_size": train_batch_size}
    settings = settings_from(given, general["config"], messages)

    from bnaudit.verbs.sweep_values import parsed_values

    sizes = parsed_values("batch-size", values) if values is not None else None
    folder = settings.output
    if folder is None and not as_json:
        name = settings.checkpoint.stem if settings.checkpoint else "model"
        folder = Path("bnaudit-results") / name

    from bnaudit.report.files import check_folder
    from bnaudit.report.leakage import print_leakage
    from bnaudit.report.leakage_files import write_leakage
    from bnaudit.verbs.policy import policy_of

    policy_of(settings)  # what it cannot be is told before the work
    if folder is not None:
        check_folder(folder)
    with messages.status("loading") if messages.is_terminal else screen.quiet():
        from bnaudit.verbs.leakage_file import leakage_of
    found = leakage_of(
        settings,
        by=by,
        values=sizes,
        group_size=group_size,
        draws=draws,
        progress=partial(screen.progress, messages),
        say=partial(screen.say, messages),
    )
    written = write_leakage(found, folder, plots=settings.plots) if folder is not None else []
    if as_json:
        typer.echo(found.to_json(), nl=False)
    if not as_json or messages.is_terminal:
        console = messages if as_json else screen.tables()
        print_leakage(found, console, all_layers=show_all)
        screen.print_written(console, written)
