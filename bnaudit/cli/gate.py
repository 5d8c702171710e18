"""`bnaudit gate`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from bnaudit.cli import options
from bnaudit.cli.options import OUT, option

EPILOG = """\
Examples:

bnaudit gate ckpt.pth --config bnaudit.toml

bnaudit gate ckpt.pth --config bnaudit.toml --write-baseline --baseline main.json

bnaudit gate ckpt.pth --config bnaudit.toml --baseline main.json

bnaudit gate new.pth --config bnaudit.toml --base-checkpoint deployed.pth

bnaudit gate bnaudit-results/ckpt/audit.json --baseline main.json --max-layer-esm 0.2

bnaudit gate ckpt.pth --format github --report junit=gate.xml --report markdown=summary.md
"""

GATE = "What fails"
AGAINST = "Baseline"

_GATE_SETTINGS = (
    "fail_on",
    "inconclusive",
    "max_layer_esm",
    "max_total_esm",
    "max_disagreement",
    "max_cross_entropy",
    "min_accuracy",
    "baseline",
    "base_checkpoint",
    "report",
)
"""Options that stand in the table [gate] of the settings."""

_COMMAND_LINE_ONLY = ("subject", "config", "output_format", "show_all", "write_baseline")


def gate(
    subject: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT|AUDIT",
            help="A checkpoint, which is measured; or an audit.json (or its folder), whose figures "
            "are judged as they are.",
            show_default=False,
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        option(
            metavar="SEVERITY",
            help="Findings that fail: error, warning (and error), info (all), or nothing. "
            "(default: warning)",
            panel=GATE,
        ),
    ] = None,
    max_layer_esm: Annotated[
        float | None,
        option(help="Largest output shift of a layer, in standard deviations.", panel=GATE),
    ] = None,
    max_total_esm: Annotated[
        float | None,
        option(help="Output shift over all layers (root mean square).", panel=GATE),
    ] = None,
    max_disagreement: Annotated[
        float | None,
        option(
            help="Share of samples (0 to 1) whose class differs under mini-batch statistics.",
            panel=GATE,
        ),
    ] = None,
    max_cross_entropy: Annotated[
        float | None, option(help="Mean loss of the deployed model, in nats.", panel=GATE)
    ] = None,
    min_accuracy: Annotated[
        float | None, option(help="Top-1 accuracy of the deployed model, 0 to 1.", panel=GATE)
    ] = None,
    inconclusive: Annotated[
        str | None,
        option(
            metavar="fail|pass",
            help="What too little data count as in the exit code. (default: fail)",
            panel=GATE,
        ),
    ] = None,
    threshold: options.Threshold = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    baseline: Annotated[
        Path | None,
        option(
            metavar="AUDIT",
            help="An audit.json: only what got worse fails, beyond a tolerance and the noise of "
            "both measurements.",
            panel=AGAINST,
        ),
    ] = None,
    write_baseline: Annotated[
        bool,
        typer.Option(
            "--write-baseline",
            help="Accept today's state: write it to --baseline (default: bnaudit-baseline.json).",
            rich_help_panel=AGAINST,
        ),
    ] = False,
    base_checkpoint: Annotated[
        Path | None,
        option(
            metavar="CHECKPOINT",
            help="Measure this one first, on the same samples, and compare with it, not with "
            "--baseline: the strongest form.",
            panel=AGAINST,
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
    seed: options.Seed = None,
    forward: options.Forward = None,
    task: options.Task = None,
    compare: options.Compare = None,
    config: options.Config = None,
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="What stdout gets: terminal, json, junit, markdown, or github (annotations; the "
            "summary goes to $GITHUB_STEP_SUMMARY).",
            rich_help_panel=OUT,
        ),
    ] = "terminal",
    report: Annotated[
        list[str] | None,
        option(
            metavar="KIND=PATH",
            help="Also write json, junit, markdown or github into a file; may be repeated.",
            panel=OUT,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        option(
            "-o",
            "--output",
            help="Folder for audit.json, its tables and plots, and gate.json. (default: none)",
            panel=OUT,
        ),
    ] = None,
    plots: options.Plots = None,
    show_all: options.ShowAll = False,
) -> None:
    """Fail where the statistics of a checkpoint are wrong, or got worse: for CI.

    Exit code 0 where it passes, 1 where it fails or the data are too few to tell. Without a
    baseline, findings and limits decide; with one only what got worse, beyond a tolerance and
    beyond the noise of the two measurements, so that an unchanged model does not fail by chance.
    Settings for all of it: the table [gate] of bnaudit.toml (`bnaudit init` writes one).
    """
    given = {key: value for key, value in locals().items() if key not in _COMMAND_LINE_ONLY}
    in_table = {name: given.pop(name) for name in _GATE_SETTINGS}
    given["gate"] = {name: x for name, x in in_table.items() if x is not None and x != []}
    from bnaudit.cli import gate_run, screen
    from bnaudit.cli.gate_inputs import check_output, read_by, refuse_measuring
    from bnaudit.cli.settings import settings_from
    from bnaudit.report.gate import print_gate
    from bnaudit.report.gate_files import (
        TERMINAL,
        check_format,
        parse_reports,
        rendered,
        write_reports,
    )

    check_format(output_format)
    existing = subject if subject is not None and gate_run.is_audit(subject) else None
    given["checkpoint"] = subject if existing is None else None
    if existing is not None:
        refuse_measuring(given, existing)
    messages = screen.messages()
    settings = settings_from(given, config, messages)
    inputs = read_by(settings, existing, config)
    to_write = gate_run.baseline_to_write(settings, inputs) if write_baseline else None
    baseline_file = to_write or settings.gate.baseline
    reports = parse_reports(
        settings.gate.report,
        inputs if baseline_file is None else [*inputs, baseline_file],
        gate_run.outputs(settings),
    )
    whole = settings.output is not None and check_output(settings.output, existing, baseline_file)
    judge = gate_run.accept if write_baseline else gate_run.judge
    verdict, audit = judge(settings, existing, messages)

    if audit is None:
        gate_run.remove_outdated(settings)
    written = gate_run.save_results(verdict, audit if whole else None, settings)
    written += write_reports(verdict, reports)
    if output_format != TERMINAL:
        typer.echo(rendered(verdict, output_format), nl=False)
    gate_run.tell_github(verdict, output_format)
    console = screen.tables() if output_format == TERMINAL else messages
    if output_format == TERMINAL or messages.is_terminal:
        print_gate(verdict, console, all_layers=show_all)
        for _, together in groupby(written, key=lambda path: path.parent):
            screen.print_written(console, list(together))
    if to_write is not None:
        gate_run.save_baseline(audit, verdict, to_write, messages)
    raise typer.Exit(verdict.exit_code)
