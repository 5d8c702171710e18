"""`bnaudit init`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bnaudit.cli import options
from bnaudit.cli.options import OUT, option

if TYPE_CHECKING:
    from rich.console import Console

    from bnaudit.verbs.init import Initialised

EPILOG = """\
Examples:

bnaudit init

bnaudit init checkpoints/resnet50.pth

bnaudit init ckpt.pth --model nets.py:resnet20 --model-arg classes=10 --data cifar10:data

bnaudit init ckpt.pth -o ci/bnaudit.toml --force
"""


def init(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="The weights, or a folder of transformers. Default: the only checkpoint file in "
            "the current folder.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    checkpoint_key: options.CheckpointKey = None,
    data: options.Data = None,
    data_arg: options.DataArg = None,
    transform: options.Transform = None,
    output: Annotated[
        Path | None,
        option("-o", "--output", help="The file to write. (default: bnaudit.toml)", panel=OUT),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the file where it is there already.",
            rich_help_panel=OUT,
            show_default=False,
        ),
    ] = False,
) -> None:
    """Write a commented bnaudit.toml for a checkpoint.

    The model is looked for among those of torchvision and timm, by the names and shapes of their
    tensors; nothing is downloaded. The data are looked for in the current folder (val, test, .npz,
    CIFAR-10). Where both are found, a few samples are measured to see that it works. What cannot be
    told is named, and stands in the file as a comment to fill in.
    """
    from bnaudit.cli import screen
    from bnaudit.verbs.init import Wanted
    from bnaudit.verbs.init import init as write_first

    messages = screen.messages()
    wanted = Wanted(
        model=model,
        model_arg=_parsed("--model-arg", model_arg),
        key=checkpoint_key,
        data=data,
        data_arg=_parsed("--data-arg", data_arg),
        transform=transform,
    )
    done = write_first(
        checkpoint, wanted, output=output, force=force, progress=partial(screen.progress, messages)
    )
    _print(screen.tables(), done)


def _parsed(name: str, pairs: list[str] | None) -> dict[str, Any] | None:
    from bnaudit.targets.factories import parse_args

    return parse_args(pairs, option=name) if pairs else None


def _print(console: Console, done: Initialised) -> None:
    import shlex

    from rich.table import Table
    from rich.text import Text

    from bnaudit.checkpoints.messages import one_line
    from bnaudit.cli import screen
    from bnaudit.config import DEFAULT_FILE

    table = Table.grid(padding=(0, 2))
    for state, rows in (("found", done.found), ("check", done.check), ("missing", done.missing)):
        for what, words in rows:
            table.add_row(Text(state), Text(what), Text(one_line(words)))
    for note in done.notes:
        table.add_row(Text("note"), Text(""), Text(note))
    console.print(table)
    screen.say(console, f"written to {done.path}{_trial(done)}")
    words_of_file = () if done.path == Path(DEFAULT_FILE) else ("--config", str(done.path))
    rest = shlex.join((*words_of_file, *done.options))
    first = "fill in what is missing, then:" if done.missing else "next:"
    if done.problem is not None:
        first = "mend that, then:"
    for verb in ("measure", "gate"):
        screen.print_command(console, first, f"bnaudit {verb} {rest}".rstrip())
        first = "for CI:"


def _trial(done: Initialised) -> str:
    if done.problem is not None:
        return f"; it does not work yet: {done.problem}"
    if done.tried == "measured":
        return ": eight samples were measured with it"
    return ": the weights were loaded with it" if done.tried == "loaded" else ""
