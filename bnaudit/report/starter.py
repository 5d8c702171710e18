"""What `bnaudit init` found, as a commented configuration file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bnaudit.config import GateSettings
from bnaudit.report.toml import comment, setting

Arguments = Mapping[str, object]


@dataclass(frozen=True)
class Spec:
    """A setting such as `model` or `data`, with its arguments, as the file says it.

    `spec`: None where it is missing. `about`: sentences on it, each a comment of its own.
    `candidates`: what it could be where it is missing, each with a remark.
    """

    spec: str | None = None
    args: Arguments = field(default_factory=dict)
    about: tuple[str, ...] = ()
    candidates: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Starter:
    """The settings of a new file: what is known of a checkpoint, with the words about it.

    Paths are as the file is to have them. `about`: sentences on the checkpoint. `key`: the place of
    the weights, None where the file need not say it. `needs_model`: whether the checkpoint has
    weights only. `proposed_transform`: written as a comment, where `transform` has none.
    `threshold`, `samples`, `batch_size`: the defaults, to be shown.
    """

    checkpoint: str
    about: tuple[str, ...]
    key: str | None
    model: Spec
    needs_model: bool
    data: Spec
    train_data: Spec
    transform: Spec
    proposed_transform: str | None
    threshold: float
    samples: int
    batch_size: int


def starter_text(starter: Starter) -> str:
    """The configuration file, in TOML. Raises `InputError` for a value that TOML cannot hold."""
    parts = (
        _head(),
        _checkpoint(starter),
        _model(starter),
        _data(starter),
        _transform(starter),
        _run(starter),
        _thresholds(starter),
        _gate(),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head() -> Iterator[str]:
    yield from comment(
        "Settings of bnaudit, by the names of its options; the command line wins. Paths are "
        "relative to this file. `bnaudit config show` prints what is in force."
    )


def _checkpoint(starter: Starter) -> Iterator[str]:
    yield setting("checkpoint", starter.checkpoint)
    if starter.key is not None:
        yield setting("checkpoint_key", starter.key)
    yield from _comments(starter.about)


def _model(starter: Starter) -> Iterator[str]:
    model = starter.model
    if model.spec is not None:
        yield from _spec("model", model)
    elif starter.needs_model:
        yield "# Missing: the model that these weights belong to. One of:"
        for spec, remark in model.candidates:
            yield _off("model", spec, remark)
        yield _off("model", "path/file.py:factory", "a function or class that gives it")
        yield _off("model", "package.module:factory")
        yield _off("model", "torchvision:resnet50", "or timm:NAME")
        yield _off("model_arg", {"num_classes": 10}, "arguments of the factory")
    yield from _comments(model.about)


def _data(starter: Starter) -> Iterator[str]:
    if starter.data.spec is not None:
        yield "# The data to measure on: such as the model is for, held out from training."
        yield from _spec("data", starter.data)
    else:
        yield "# Missing: the data to measure on, held out from training. One of:"
        yield _off("data", "imagefolder:data/val", "a subfolder for each class")
        yield _off("data", "cifar10:data", "CIFAR-10's published batches")
        yield _off("data", "npz:data/val.npz", "arrays x and y")
        yield _off("data", "path/file.py:factory", "a Dataset, a DataLoader, any batches")
    yield from _comments(starter.data.about)
    yield "# The training data tell whether the statistics are wrong or the data moved."
    train = starter.train_data
    yield _off("train_data", train.spec or "imagefolder:data/train")
    if train.args:
        yield _off("train_data_arg", train.args)


def _transform(starter: Starter) -> Iterator[str]:
    transform = starter.transform
    if transform.spec is not None:
        yield setting("transform", transform.spec)
    else:
        yield "# How an image is prepared, as in training. Without it: RGB, divided by 255."
        if starter.proposed_transform is not None:
            yield _off("transform", starter.proposed_transform, "as published with torchvision")
        yield _off("transform", "imagenet", "256, centre crop of 224, ImageNet's mean")
        yield _off("transform", "path/file.py:factory")
    yield from _comments(transform.about)


def _run(starter: Starter) -> Iterator[str]:
    yield _off("samples", starter.samples, 'a seeded random subset, or "all"')
    yield _off("batch_size", starter.batch_size, "samples a forward")
    yield _off("train_batch_size", starter.batch_size, "that of training, on each device")


def _thresholds(starter: Starter) -> Iterator[str]:
    yield "# From what on there is a finding: `bnaudit explain BN101` names its thresholds."
    yield "# [thresholds.BN101]"
    yield _off("shift", starter.threshold)


def _gate() -> Iterator[str]:
    default = GateSettings()
    yield "# What makes `bnaudit gate` fail."
    yield "[gate]"
    yield _off("fail_on", default.fail_on, "error, warning, info or nothing")
    yield _off("inconclusive", default.inconclusive, "where data are too few: fail or pass")
    yield _off("max_layer_esm", 0.2, "largest output shift of a layer")
    yield _off("max_total_esm", 0.1, "the same of all layers, root mean square")
    yield _off("max_disagreement", 0.05, "share of other classes in train mode")
    yield _off("min_accuracy", 0.9, "top-1; needs labels")
    yield _off("ignore", ["BN106"], "findings that do not count here")
    yield "# With a baseline (bnaudit gate --write-baseline) only what gets worse fails."
    yield _off("baseline", "bnaudit-baseline.json")
    yield "# How much worse it may get, beyond the noise of both measurements:"
    yield "# [gate.tolerance]"
    for name, value in default.tolerance.model_dump().items():
        yield _off(name, value)


def _spec(name: str, spec: Spec) -> Iterator[str]:
    yield setting(name, spec.spec)
    if spec.args:
        yield setting(f"{name}_arg", spec.args)


def _off(name: str, value: object, remark: str = "") -> str:
    """A setting that is not in force, and what it is."""
    line = f"# {setting(name, value)}"
    return f"{line:<42} # {remark}" if remark else line


def _comments(texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        yield from comment(text)
