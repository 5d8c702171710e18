"""`bnaudit domains`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bnaudit.cli import options
from bnaudit.cli.options import DATA, OUT, option

VERIFY = "Verification"

NO_SETTINGS = ("config", "json", "show_all", "bank", "write_checkpoints", "overwrite")

EPILOG = """\
Examples:

bnaudit domains ckpt.pth --model torchvision:resnet50 --transform imagenet --domain day=imagefolder:day --domain night=imagefolder:night --bank domains.safetensors

bnaudit domains sample_models/healthy.pt --config sample_models/bnaudit.toml --domain plain=npz:sample_models/digits.npz --domain hazy=npz:sample_models/digits.npz --domain-transform hazy=sample_models/digits.py:low_contrast

bnaudit domains ckpt.pth --config bnaudit.toml --write-checkpoints by-domain

In Python: with bnaudit.apply_domain(model, "domains.safetensors", "night"): ...
"""  # noqa: E501


def domains(
    checkpoint: options.Checkpoint = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    checkpoint_key: options.CheckpointKey = None,
    allow_mismatch: options.AllowMismatch = None,
    trust_pickle: options.TrustPickle = None,
    domain: Annotated[
        list[str] | None,
        option(
            metavar="NAME=SPEC",
            help="A domain and its data: imagefolder:DIR, cifar10:DIR, npz:FILE or "
            "path/file.py:factory. Once for each domain.",
            panel=DATA,
        ),
    ] = None,
    data_arg: Annotated[
        list[str] | None,
        option(
            metavar="KEY=VALUE",
            help="An argument of the data of every domain, e.g. split=test; may be repeated.",
            panel=DATA,
        ),
    ] = None,
    domain_arg: Annotated[
        list[str] | None,
        option(
            metavar="NAME.KEY=VALUE",
            help="An argument of the data of one domain, e.g. night.split=night.",
            panel=DATA,
        ),
    ] = None,
    transform: options.Transform = None,
    domain_transform: Annotated[
        list[str] | None,
        option(
            metavar="NAME=SPEC",
            help="The transform of one domain, in place of --transform.",
            panel=DATA,
        ),
    ] = None,
    samples: Annotated[
        str | None,
        option(
            metavar="N|all",
            help="Calibration samples of each domain: a seeded random subset. (default: 1000)",
            panel=DATA,
        ),
    ] = None,
    skip_bad: options.SkipBad = None,
    verify_split: Annotated[
        float | None,
        option(
            metavar="F",
            help="The share of each domain's data that is kept for verification. (default: 0.5)",
            panel=VERIFY,
        ),
    ] = None,
    verify_samples: Annotated[
        str | None,
        option(
            metavar="N|all",
            help="Verification samples of each domain: a seeded random subset. (default: 2000)",
            panel=VERIFY,
        ),
    ] = None,
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
    bank: Annotated[
        Path | None,
        option(
            metavar="FILE",
            help="Write the statistics of all domains into one .safetensors file, for "
            "bnaudit.apply_domain.",
            panel=OUT,
        ),
    ] = None,
    write_checkpoints: Annotated[
        Path | None,
        option(
            metavar="DIR",
            help="Write a copy of the checkpoint for each domain, and one with the pooled "
            "statistics, into this folder. Only the statistics differ in them.",
            panel=OUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace existing banks and checkpoints.", rich_help_panel=OUT
        ),
    ] = False,
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
            help="Print the result on stdout and nothing else; results only with --output.",
            rich_help_panel=OUT,
        ),
    ] = False,
    show_all: options.ShowAll = False,
) -> None:
    """Compare domains: do they need BatchNorm statistics of their own?

    A half of each domain's data gives its exact statistics, and all domains together the pooled
    ones. The other halves are run under every set, the checkpoint's too: a matrix of statistics
    against data, how far apart the domains are in each layer, and whether statistics of its own
    pay for a domain, with significance. The statistics can be kept as a bank or as a checkpoint
    for each domain. Where a layer is called several times in a forward, what it costs that its
    calls share statistics is measured too. The checkpoint is never modified.
    """
    given = {k: v for k, v in locals().items() if k not in NO_SETTINGS}
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from

    given["domain"] = _named("--domain", domain)
    given["domain_transform"] = _named("--domain-transform", domain_transform)
    given["domain_arg"] = _args(domain_arg)
    messages = screen.messages()
    settings = settings_from(given, config, messages)
    folder = settings.output
    if folder is None and not json:
        name = settings.checkpoint.stem if settings.checkpoint else "model"
        folder = Path("bnaudit-results") / name
    from bnaudit.report.domains import print_domains
    from bnaudit.report.domains_files import write_domains
    from bnaudit.report.files import check_folder

    if folder is not None:
        check_folder(folder)
    with messages.status("loading") if messages.is_terminal else screen.quiet():
        from bnaudit.verbs.domains_file import Outputs, domains_file
    result, made = domains_file(
        settings,
        Outputs(bank, write_checkpoints, overwrite),
        progress=partial(screen.progress, messages),
        say=partial(screen.say, messages),
    )
    written = write_domains(result, folder, plots=settings.plots) if folder is not None else []
    if json:
        typer.echo(result.to_json(), nl=False)
    console = messages if json else screen.tables()
    if not json or messages.is_terminal:
        print_domains(result, console, all_layers=show_all)
        screen.print_written(console, written)
    screen.print_lines(console, [f"written: {path}" for path in made])


def _named(option: str, given: list[str] | None) -> dict[str, str] | None:
    """`day=imagefolder:day` as {"day": "imagefolder:day"}."""
    from bnaudit.errors import InputError

    found: dict[str, str] = {}
    for text in given or []:
        name, equals, spec = text.partition("=")
        if not (equals and name.strip() and spec.strip()):
            raise InputError(f"{option} {text}: write NAME=SPEC, such as day=imagefolder:day")
        if name.strip() in found:
            raise InputError(f"{option} {text}: {name.strip()} is named twice; give another name")
        found[name.strip()] = spec.strip()
    return found or None


def _args(given: list[str] | None) -> dict[str, dict[str, Any]] | None:
    """`night.split=night` as {"night": {"split": "night"}}."""
    from bnaudit.errors import InputError
    from bnaudit.targets.factories import parse_args

    found: dict[str, list[str]] = {}
    for text in given or []:
        place, equals, _ = text.partition("=")
        name, dot, key = place.rpartition(".")
        if not (equals and dot and name.strip() and key.strip()):
            raise InputError(f"--domain-arg {text}: write NAME.KEY=VALUE, such as night.split=test")
        found.setdefault(name.strip(), []).append(text[len(name) + 1 :])
    made = {name: parse_args(pairs, option="--domain-arg") for name, pairs in found.items()}
    return made or None
