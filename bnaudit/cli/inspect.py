"""`bnaudit inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnaudit.cli import options
from bnaudit.cli.options import FINDINGS, OUT, option

if TYPE_CHECKING:
    from rich.console import Console

    from bnaudit.config import Settings
    from bnaudit.results.findings import Finding
    from bnaudit.results.inspection import Inspection

EPILOG = """\
Examples:

bnaudit inspect sample_models/lagging_ema.pt --against sample_models/healthy.pt

bnaudit inspect ckpt.pth --checkpoint-key state_dict_ema --eps 1e-3

bnaudit inspect finetuned.pth --against pretrained.pth

bnaudit inspect merged.pth --against first.pth --against second.pth

bnaudit inspect model.safetensors --threshold BN012.multiple_of_eps=10 --ignore BN018

bnaudit inspect runs/*.pth --fail-on error

bnaudit inspect ckpt.pth --json | jq '.findings[] | {code, layers, sentence}'

What a finding means, and what to do about it: bnaudit explain CODE
"""

COMMAND_LINE_ONLY = ("checkpoints", "config", "fail_on", "json", "show_all")

NEVER = "nothing"
UNREADABLE = 2
"""The exit code where one of several files could not be inspected."""


def inspect(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CHECKPOINT]...",
            help="Files of torch.save (.pt, .pth, .th, .ckpt, .bin; state dicts, training "
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
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="SEVERITY",
            help="Exit with 1 where a finding is at least so grave: error, warning, info, or "
            "nothing.",
            rich_help_panel=FINDINGS,
        ),
    ] = NEVER,
    config: options.Config = None,
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            help="Also write inspection.json into this folder; of several files, into a folder "
            "each in it, of the file's name.",
            panel=OUT,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the Inspection on stdout and nothing else; of several files, an array of "
            "them.",
            rich_help_panel=OUT,
        ),
    ] = False,
    show_all: options.ShowAll = False,
) -> None:
    """Look at a checkpoint's BatchNorm layers: no data, no model code, a second.

    Layers are found by the names of their tensors. The statistics in figures and histograms, and
    what is wrong with them by themselves: never updated, not warmed up, broken, dead channels, in
    too small a number format. Nothing in the file is run or changed, and of a large file only the
    statistics are read; with --against, the weights too, piece by piece. Several files get a line
    each, and the tables with --all or where --fail-on fails; one that cannot be read does not keep
    the others from being inspected, and the exit code is 2 then.
    """
    given = {k: v for k, v in locals().items() if k not in COMMAND_LINE_ONLY}
    paths = list(dict.fromkeys(checkpoints or []))
    given["checkpoint"] = paths[0] if paths else None
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from
    from bnaudit.errors import InputError
    from bnaudit.report.files import check_folder
    from bnaudit.report.inspection import print_inspection
    from bnaudit.report.inspection_files import write_inspection
    from bnaudit.report.inspection_line import line

    severities = _that_fail(fail_on)
    messages = screen.messages()
    settings = settings_from(given, config, messages)
    if settings.checkpoint is None:
        raise InputError("no checkpoint: name the file to inspect")
    if settings.output is not None:
        check_folder(settings.output)
    paths = paths or [settings.checkpoint]
    several = len(paths) > 1
    console = messages if json else screen.tables()
    folders = _folders(paths, settings.output)
    inspected: list[Inspection] = []
    for path, found in _inspected(paths, settings, messages):
        inspected.append(found)
        written = [write_inspection(found, folders[path])] if path in folders else []
        if not json or messages.is_terminal:
            if not several:
                print_inspection(found, console, all_layers=show_all)
                screen.print_written(console, written)
                continue
            screen.say_whole(console, line(found))
            if show_all or _that_count(found, severities):
                print_inspection(found, console, all_layers=show_all)
                console.print()
    if json:
        typer.echo(_document(inspected, several=several), nl=False)
    elif several and folders:
        screen.say(console, f"written to {settings.output}: a folder for each file")
    grave = [found for found in inspected if _that_count(found, severities)]
    if grave and several:
        screen.say_whole(messages, _failed(grave, severities, fail_on))
    if len(inspected) < len(paths):
        raise typer.Exit(UNREADABLE)
    if grave:
        raise typer.Exit(1)


def _inspected(
    paths: Sequence[Path], settings: Settings, messages: Console
) -> Iterator[tuple[Path, Inspection]]:
    """Each file in turn. Of several, one that is at fault is told and left out."""
    from bnaudit.cli import screen
    from bnaudit.errors import InputError
    from bnaudit.verbs.inspect import inspect as inspect_file
    from bnaudit.verbs.policy import policy_of

    policy = policy_of(settings)
    for path in paths:
        try:
            found = inspect_file(
                path,
                key=settings.checkpoint_key,
                eps=settings.eps,
                against=settings.against,
                policy=policy,
            )
        except InputError as error:
            if len(paths) == 1:
                raise
            screen.say_whole(messages, f"error: {' '.join(str(error).split())}")
        else:
            yield path, found


def _folders(paths: Sequence[Path], output: Path | None) -> dict[Path, Path]:
    """Where each Inspection goes: of several files, one folder each, numbered where names meet."""
    if output is None:
        return {}
    if len(paths) == 1:
        return {paths[0]: output}
    folders: dict[Path, Path] = {}
    taken: set[str] = set()
    for path in paths:
        numbered = (f"{path.name}-{number}" for number in count(2))
        # Not every file system tells A from a.
        name = next(name for name in chain([path.name], numbered) if name.casefold() not in taken)
        taken.add(name.casefold())
        folders[path] = output / name
    return folders


def _document(inspected: Sequence[Inspection], *, several: bool) -> str:
    documents = [found.to_json().rstrip("\n") for found in inspected]
    return "[\n" + ",\n".join(documents) + "\n]\n" if several else documents[0] + "\n"


def _that_fail(fail_on: str) -> tuple[str, ...]:
    """The severities of at least that gravity. Raises `InputError` for another word."""
    from bnaudit.config import nearest
    from bnaudit.errors import InputError
    from bnaudit.results import SEVERITIES

    if fail_on == NEVER:
        return ()
    if fail_on not in SEVERITIES:
        known = (*SEVERITIES, NEVER)
        raise InputError(f"--fail-on {fail_on}: no such severity{nearest(fail_on, known)}")
    return SEVERITIES[: [*SEVERITIES].index(fail_on) + 1]


def _that_count(found: Inspection, severities: Sequence[str]) -> list[Finding]:
    return [finding for finding in found.findings if finding.severity in severities]


def _failed(grave: Sequence[Inspection], severities: Sequence[str], fail_on: str) -> str:
    from bnaudit.report.inspection_line import codes

    files = (f"{each.file.path} ({codes(_that_count(each, severities))})" for each in grave)
    return f"failed (--fail-on {fail_on}): {', '.join(files)}"
