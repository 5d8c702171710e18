"""`bnaudit restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """\
Examples:

bnaudit restore ckpt.recalibrated.pth

bnaudit restore ckpt.recalibrated.pth -o ckpt.pth
"""


def restore(
    checkpoint: Annotated[
        Path, typer.Argument(help="A file that bnaudit recalibrate wrote, beside its sidecar.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write, never the input. (default: the name of the input with "
            ".restored in place of .recalibrated)",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Unpickle everything in the checkpoint, which runs the code it names: for a file "
            "that was saved anew with it.",
        ),
    ] = False,
) -> None:
    """Undo a recalibration: a copy with the old statistics, from the sidecar beside the file."""
    from bnaudit.cli import screen
    from bnaudit.verbs.restore import restore as restore_file

    report = restore_file(checkpoint, output, overwrite=overwrite, trust_pickle=trust_pickle)
    tensors = f"{report.tensors} tensors have their old values"
    same = f"byte for byte {report.source} as it was" if report.identical else tensors
    screen.print_lines(screen.tables(), [f"written to {report.target}: {same}", *report.notes])
