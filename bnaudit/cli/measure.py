"""`bnaudit measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MODEL = "Model and checkpoint"
DATA = "Data"
RUN = "How to run"
OUT = "Output"

EPILOG = """\
Examples:

bnaudit measure sample_models/small_batch.pt --config sample_models/bnaudit.toml

bnaudit measure ckpt.pth --model torchvision:resnet50 --data imagefolder:val --transform ResNet50_Weights.IMAGENET1K_V2

bnaudit measure ckpt.pth --model nets.py:resnet20 --data cifar10:data --transform nets.py:transform --samples all

bnaudit measure model.safetensors --model timm:resnet26d --model-arg num_classes=10 --data npz:val.npz

bnaudit measure ... --json | jq .network
"""  # noqa: E501


def measure(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="The weights: .pt, .pth, .th, .ckpt, .bin or .safetensors. None: the model's own.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="torchvision:NAME, timm:NAME, path/file.py:factory or package.module:factory. "
            "Nothing is downloaded.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An argument of the model factory; may be repeated.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    checkpoint_key: Annotated[
        str | None,
        typer.Option(
            help="Where in the file the weights are, e.g. state_dict_ema. Default: found.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    allow_mismatch: Annotated[
        bool | None,
        typer.Option(
            "--allow-mismatch",
            help="Go on when weights and model differ, and say what kept its initial value.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    trust_pickle: Annotated[
        bool | None,
        typer.Option(
            "--trust-pickle",
            help="Unpickle everything in the checkpoint, which runs the code it names.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="imagefolder:DIR, cifar10:DIR, npz:FILE, or path/file.py:factory for a Dataset, a "
            "DataLoader or any iterable of batches.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    data_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An argument of the data, e.g. split=train; may be repeated.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(
            help="A torchvision weights name, imagenet, or path/file.py:factory. Default: RGB/255.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="A seeded random subset of this size. (default: 2000)",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool | None,
        typer.Option(
            "--skip-bad",
            help="Leave unreadable samples out, and list them.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Samples a forward. (default: 32)", rich_help_panel=RUN, show_default=False
        ),
    ] = None,
    train_batch_size: Annotated[
        int | None,
        typer.Option(
            help="The mini-batch size at which train and inference are compared; take the one the "
            "model was trained with, per device. (default: the batch size)",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:1 or mps. (default: auto)",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, or autocast to bf16 or fp16. (default: float32)",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last",
            help="Run in the channels_last memory format.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that load data. (default: 0)", rich_help_panel=RUN, show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the subset and its order. (default: 0)",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    forward: Annotated[
        str | None,
        typer.Option(
            help="path/file.py:fn, called as fn(model, batch) where model(batch[0]) will not do.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="auto, classification (outputs N×K), or other. (default: auto)",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help="path/file.py:fn, called as fn(deployed_output, other_output), for outputs that "
            "are no class scores.",
            rich_help_panel=RUN,
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with the same names. Default: bnaudit.toml, or the table "
            "tool.bnaudit in pyproject.toml, where one stands. The command line wins.",
            rich_help_panel=OUT,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder of the results. (default: bnaudit-results/NAME)",
            rich_help_panel=OUT,
            show_default=False,
        ),
    ] = None,
    plots: Annotated[
        bool | None,
        typer.Option(
            "--plots/--no-plots",
            help="Whether to draw the plots. (default: plots)",
            rich_help_panel=OUT,
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the Audit on stdout and nothing else; files only with --output.",
            rich_help_panel=OUT,
        ),
    ] = False,
    show_all: Annotated[
        bool,
        typer.Option("--all", help="Show every layer of a long table.", rich_help_panel=OUT),
    ] = False,
) -> None:
    """Measure every BatchNorm layer of a checkpoint on data.

    How far the running statistics are from what each layer really sees (estimation shift, with
    error bars), what normalising by mini-batches would change, and what that does to the outputs.
    The model is never modified, and neither is the checkpoint.
    """
    options = {k: v for k, v in locals().items() if k not in ("config", "json", "show_all")}
    _run(options, config, as_json=json, show_all=show_all)


def _run(options: dict[str, Any], config: Path | None, *, as_json: bool, show_all: bool) -> None:
    from bnaudit.cli import screen
    from bnaudit.cli.settings import settings_from

    messages = screen.messages()
    settings = settings_from(options, config, messages)
    folder = settings.output
    if folder is None and not as_json:
        name = settings.checkpoint.stem if settings.checkpoint else "model"
        folder = Path("bnaudit-results") / name

    from bnaudit.report.files import check_folder, write_results
    from bnaudit.report.terminal import print_audit

    if folder is not None:
        check_folder(folder)
    with messages.status("loading") if messages.is_terminal else screen.quiet():
        from bnaudit.verbs.measure import measure_with
        from bnaudit.verbs.prepare import prepare

        parts = prepare(settings)
    with screen.progress(messages, "measuring", parts.reader.total) as advance:
        audit = measure_with(
            parts.model,
            parts.reader,
            parts.conditions,
            model_info=parts.model_info,
            data_source=parts.data_source,
            transform=parts.transform,
            train_batch_size=settings.train_batch_size,
            task=settings.task,
            compare=parts.compare,
            progress=advance,
        )
    written = write_results(audit, folder, plots=settings.plots) if folder is not None else []
    if as_json:
        typer.echo(audit.to_json(), nl=False)
    console = messages if as_json else screen.tables()
    if not as_json or messages.is_terminal:
        print_audit(audit, console, all_layers=show_all)
        screen.print_written(console, written)
