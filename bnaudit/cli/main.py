"""The `bnaudit` command: its verbs, and what every verb's failure looks like."""

from __future__ import annotations

import io
import sys
import time
import traceback
from typing import Annotated, NoReturn

import typer

from bnaudit._version import __version__
from bnaudit.cli.advise import EPILOG as ADVISE_EPILOG
from bnaudit.cli.advise import advise
from bnaudit.cli.command import Command
from bnaudit.cli.compare import EPILOG as COMPARE_EPILOG
from bnaudit.cli.compare import compare
from bnaudit.cli.config import config
from bnaudit.cli.domains import EPILOG as DOMAINS_EPILOG
from bnaudit.cli.domains import domains
from bnaudit.cli.explain import EPILOG as EXPLAIN_EPILOG
from bnaudit.cli.explain import explain
from bnaudit.cli.gate import EPILOG as GATE_EPILOG
from bnaudit.cli.gate import gate
from bnaudit.cli.init import EPILOG as INIT_EPILOG
from bnaudit.cli.init import init
from bnaudit.cli.inspect import EPILOG as INSPECT_EPILOG
from bnaudit.cli.inspect import inspect
from bnaudit.cli.leakage import EPILOG as LEAKAGE_EPILOG
from bnaudit.cli.leakage import leakage
from bnaudit.cli.measure import EPILOG as MEASURE_EPILOG
from bnaudit.cli.measure import measure
from bnaudit.cli.rank import is_first, rank_and_size
from bnaudit.cli.recalibrate import EPILOG as RECALIBRATE_EPILOG
from bnaudit.cli.recalibrate import recalibrate
from bnaudit.cli.report import report
from bnaudit.cli.restore import EPILOG as RESTORE_EPILOG
from bnaudit.cli.restore import restore
from bnaudit.cli.sweep import sweep
from bnaudit.errors import BnauditError, InputError

USAGE = 2
BUG = 3
INTERRUPTED = 130

ON_RANKS = ("measure", "recalibrate")
"""The commands that several processes share; the others take no time, or go on from an Audit."""

FIRST_SPEAKS = 5.0
"""Seconds that other ranks leave the first one to say what is wrong with the command that all have:
a launcher ends all as soon as one has ended. Where they are still there, it is theirs alone."""

app = typer.Typer(
    name="bnaudit",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Examples:\n\n"
        "bnaudit init ckpt.pth\n\n"
        "bnaudit inspect ckpt.pth\n\n"
        "bnaudit measure ckpt.pth --model torchvision:resnet50 --data imagefolder:val "
        "--transform imagenet\n\n"
        "bnaudit recalibrate ckpt.pth --model torchvision:resnet50 --data imagefolder:calibration "
        "--verify imagefolder:heldout --transform imagenet\n\n"
        "bnaudit restore ckpt.recalibrated.pth\n\n"
        "bnaudit gate ckpt.pth --config bnaudit.toml --baseline main.json"
    ),
)
app.command(cls=Command, epilog=INIT_EPILOG)(init)
app.command(cls=Command, epilog=INSPECT_EPILOG)(inspect)
app.command(cls=Command, epilog=MEASURE_EPILOG)(measure)
app.command(cls=Command, epilog=RECALIBRATE_EPILOG)(recalibrate)
app.command(cls=Command, epilog=DOMAINS_EPILOG)(domains)
app.command(cls=Command, epilog=LEAKAGE_EPILOG)(leakage)
app.command(cls=Command, epilog=GATE_EPILOG)(gate)
app.command(cls=Command, epilog=COMPARE_EPILOG)(compare)
app.command(epilog=ADVISE_EPILOG)(advise)
app.command(epilog=RESTORE_EPILOG)(restore)
app.command()(report)
app.command(epilog=EXPLAIN_EPILOG)(explain)
app.add_typer(sweep, name="sweep")
app.add_typer(config, name="config")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"bnaudit {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Diagnose and repair the statistics of BatchNorm layers.

    How far the running estimates of a checkpoint are from what its layers really see, layer by
    layer, with error bars; a copy with the right ones, where data that took no part show that it
    helps; and a gate for CI.
    """
    _, size = rank_and_size()
    if size > 1 and context.invoked_subcommand not in ON_RANKS:
        raise InputError(
            f"bnaudit {context.invoked_subcommand} is the work of one process: start it without "
            f"torchrun ({' and '.join(ON_RANKS)} run on {size} ranks)"
        )


def run() -> None:
    """The entry point.

    Exit code 0 fine, 1 a verification refused, 2 the input is at fault, 3 a bug, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console without γ gets a question mark
    try:
        code = app(standalone_mode=False)
    except BnauditError as error:
        _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors, whose module typer hides
            if said := error.format_message():
                _fail(f"{said} See {_help_for(error)}", USAGE)
            sys.exit(USAGE)  # a group without a verb: its help has been printed
        traceback.print_exc()
        print(  # noqa: T201
            f"\nThis is a bug in bnaudit {__version__}, not in your input. Please report it on the "
            "project's issue tracker, with the command and the lines above.",
            file=sys.stderr,
        )
        sys.exit(BUG)
    if code == INTERRUPTED and is_first():
        print("interrupted", file=sys.stderr)  # noqa: T201
    sys.exit(code if isinstance(code, int) else 0)


def _help_for(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'bnaudit'} --help."


def _fail(message: str, code: int) -> NoReturn:
    from bnaudit.report.neutral import neutral

    if not is_first():
        time.sleep(FIRST_SPEAKS)
        message = f"rank {rank_and_size()[0]}: {message}"
    print(f"error: {neutral(' '.join(message.split()))}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
