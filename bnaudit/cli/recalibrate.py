"""`bnaudit recalibrate`."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bnaudit.cli import options
from bnaudit.cli.options import OUT, option

if TYPE_CHECKING:
    from rich.console import Console

    from bnaudit.config import Settings
    from bnaudit.verbs.recalibrate_file import Outcome

METHOD = "Method"
VERIFY = "Verification"
REFUSED = 1

NO_SETTINGS = ("config", "output", "json", "show_all", "force", "dry_run", "overwrite")

EPILOG = """\
Examples:

bnaudit recalibrate sample_models/lagging_ema.pt --config sample_models/bnaudit.toml --verify-split 0.5 -o better.pt

bnaudit recalibrate ckpt.pth --model torchvision:resnet50 --data imagefolder:calibration --verify imagefolder:heldout --transform ResNet50_Weights.IMAGENET1K_V2

bnaudit recalibrate ckpt.pth ... --layers 'layer3.*' --layers '/bn[12]$/' --above 0.1 --prior 64 --dry-run

bnaudit recalibrate ckpt.pth ... --method ema --momentum 0.01 --samples all

bnaudit recalibrate ckpt.pth ... --json | jq .decision

bnaudit restore ckpt.recalibrated.pth
"""  # noqa: E501


def recalibrate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="The weights: .pt, .pth, .th, .ckpt, .bin or .safetensors. Never written to.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    checkpoint_key: options.CheckpointKey = None,
    allow_mismatch: options.AllowMismatch = None,
    trust_pickle: options.TrustPickle = None,
    data: options.Data = None,
    data_arg: options.DataArg = None,
    transform: options.Transform = None,
    samples: Annotated[str | None, options.samples_option(1000)] = None,
    skip_bad: options.SkipBad = None,
    method: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="exact (all batches together, one pass), sequential (the same, a pass a layer, "
            "less memory), precise (mini-batch statistics, pooled) or ema (the framework's own "
            "rule). (default: exact)",
            panel=METHOD,
        ),
    ] = None,
    momentum: Annotated[
        float | None,
        option(help="Of --method ema. (default: the layers' own)", panel=METHOD),
    ] = None,
    prior: Annotated[
        float | None,
        option(
            metavar="N",
            help="Mix with the checkpoint's statistics as if they came from N samples. "
            "(default: 0)",
            panel=METHOD,
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        option(
            metavar="PATTERN",
            help="Only layers with such a name: a glob, or /regex/; may be repeated.",
            panel=METHOD,
        ),
    ] = None,
    above: Annotated[
        float | None,
        option(
            metavar="SHIFT",
            help="Only layers whose own output shift on the calibration data is larger.",
            panel=METHOD,
        ),
    ] = None,
    include_frozen: Annotated[
        bool | None,
        option(
            "--include-frozen/--no-include-frozen",
            help="Frozen layers too, whose statistics are part of the weights.",
            panel=METHOD,
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        option(
            metavar="SIZE",
            help="What exact may hold at once, e.g. 8GB. (default: 70% of what is free)",
            panel=METHOD,
        ),
    ] = None,
    verify: Annotated[
        str | None,
        option(
            metavar="SPEC",
            help="Data, as for --data, that took no part: they decide whether to write.",
            panel=VERIFY,
        ),
    ] = None,
    verify_arg: Annotated[
        list[str] | None,
        option(
            metavar="KEY=VALUE",
            help="An argument of the verification data; may be repeated.",
            panel=VERIFY,
        ),
    ] = None,
    verify_split: Annotated[
        float | None,
        option(
            metavar="F",
            help="Without --verify: the share of --data that is kept for it. (default: 0.5)",
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
    max_loss: Annotated[
        float | None,
        option(
            metavar="POINTS",
            help="Without a significant gain, write if the accuracy loses less than this for "
            "certain (95%). (default: 0.5)",
            panel=VERIFY,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Write whatever the verification says, and recalibrate even on data that are "
            "preprocessed wrongly.",
            rich_help_panel=VERIFY,
        ),
    ] = False,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    channels_last: options.ChannelsLast = None,
    workers: options.Workers = None,
    decode: options.Decode = None,
    rank_timeout: options.RankTimeout = None,
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
            help="The file to write, never the input. (default: CHECKPOINT with .recalibrated "
            "before its suffix)",
            panel=OUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel=OUT),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Do everything but write.", rich_help_panel=OUT),
    ] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the result on stdout and nothing else.",
            rich_help_panel=OUT,
        ),
    ] = False,
    show_all: options.ShowAll = False,
) -> None:
    """Recompute a checkpoint's BatchNorm statistics, verify them, and write a copy.

    The statistics become those that the layers really have on the calibration data. Data that took
    no part decide: a copy is written where it helps, or does no harm; otherwise nothing is
    written, and the exit code is 1. Data that are preprocessed wrongly (BGR for RGB, no
    normalisation, …) are refused. In the copy only the statistics differ. The checkpoint is never
    modified.
    """
    given = {k: v for k, v in locals().items() if k not in NO_SETTINGS}
    from bnaudit.cli import screen
    from bnaudit.cli.launcher import launched
    from bnaudit.cli.settings import settings_from
    from bnaudit.results import Recalibrated

    messages = screen.messages()
    settings = _consistent(settings_from(given, config, messages), given)
    target = output or _default_target(settings)
    with messages.status("loading") if messages.is_terminal else screen.quiet():
        from bnaudit.verbs.recalibrate_file import recalibrate_file
    with launched(settings.rank_timeout) as ranks:
        outcome = recalibrate_file(
            settings,
            target,
            dry_run=dry_run,
            force=force,
            overwrite=overwrite,
            progress=partial(screen.progress, messages),
            say=partial(screen.say, messages),
            ranks=ranks,
        )
    if not ranks.is_first:
        return
    result: Recalibrated = outcome.result
    if json:
        typer.echo(_document(outcome), nl=False)
    if not json or messages.is_terminal:
        from bnaudit.report.recalibration import print_recalibrated

        console = messages if json else screen.tables()
        print_recalibrated(result, console, all_layers=show_all)
        _print_files(outcome, console, target, dry_run=dry_run)
    if not result.decision.use and result.decision.level != "nothing-to-change":
        raise typer.Exit(REFUSED)


def _document(outcome: Outcome) -> str:
    """The result and what was written, as JSON."""
    import json

    document = json.loads(outcome.result.to_json())
    document["written"] = None
    if outcome.path is not None:
        document["written"] = {
            "path": str(outcome.path),
            "sidecar": str(outcome.sidecar),
            "in_place": outcome.in_place,
            "notes": list(outcome.notes),
        }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _consistent(settings: Settings, given: dict[str, Any]) -> Settings:
    """Options that exclude each other: the command line wins over the file, nothing over itself."""
    from bnaudit.errors import InputError

    if settings.checkpoint is None:
        raise InputError("no checkpoint: name the file whose statistics are to be recalibrated")
    if given["momentum"] is not None and settings.method != "ema":
        raise InputError(
            f"--momentum {given['momentum']:g}: is for --method ema, not {settings.method}"
        )
    if given["verify_arg"] and settings.verify is None:
        raise InputError(
            f"--verify-arg {given['verify_arg'][0]}: is for --verify, which is missing"
        )
    if settings.verify is None or settings.verify_split is None:
        return settings
    if (given["verify"] is None) == (given["verify_split"] is None):
        raise InputError(
            f"--verify {settings.verify} and --verify-split {settings.verify_split:g} exclude each "
            "other: give data of their own, or a share of --data"
        )
    if given["verify"] is None:
        return settings.model_copy(update={"verify": None, "verify_arg": {}})
    return settings.model_copy(update={"verify_split": None})


def _default_target(settings: Settings) -> Path:
    assert settings.checkpoint is not None
    return settings.checkpoint.with_suffix(f".recalibrated{settings.checkpoint.suffix}")


def _print_files(outcome: Outcome, console: Console, target: Path, *, dry_run: bool) -> None:
    """What was written, what differs in it, and how to undo it; or that nothing was."""
    from bnaudit.cli import screen

    console.print()
    if outcome.path is None:
        lines = [f"nothing written{_why_not(outcome, target, dry_run=dry_run)}", *outcome.notes]
        screen.print_lines(console, lines)
        return
    where = "only the statistics differ" if outcome.in_place else "saved anew"
    lines = [f"written to {outcome.path} ({where})", *outcome.notes]
    if outcome.sidecar is not None:
        lines.append(f"provenance and the old statistics: {outcome.sidecar}")
    screen.print_lines(console, lines)
    if outcome.sidecar is not None:
        screen.print_command(console, "undo:", f"bnaudit restore {shlex.quote(str(outcome.path))}")


def _why_not(outcome: Outcome, target: Path, *, dry_run: bool) -> str:
    decision = outcome.result.decision
    if decision.level == "nothing-to-change":
        return ": no layer was recalibrated"
    if not decision.use:
        return "; --force overrides"
    return f" (dry run); it would go to {target}" if dry_run else ""
