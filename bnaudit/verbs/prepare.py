"""From settings to the parts of a run: model, weights, data, and how they meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnaudit.checkpoints.contents import read_contents
from bnaudit.checkpoints.load import LoadReport, load_checkpoint
from bnaudit.checkpoints.opening import opened
from bnaudit.checkpoints.read import read_checkpoint
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.config import Settings
from bnaudit.engine.batches import default_forward
from bnaudit.engine.conditions import Conditions
from bnaudit.engine.ranks import ALONE, Ranks
from bnaudit.errors import InputError
from bnaudit.results import ModelInfo
from bnaudit.results.state import State
from bnaudit.targets.data import DataTarget, Transform, open_data
from bnaudit.targets.decoding import decoded_on_gpu
from bnaudit.targets.forward import build_compare, build_forward
from bnaudit.targets.hugging_face import folder_of, no_weights
from bnaudit.targets.loading import automatic_workers
from bnaudit.targets.models import build_model
from bnaudit.targets.transforms import build_transform
from bnaudit.verbs.devices import usable_device
from bnaudit.verbs.folder_weights import load_folder_weights
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE, pass_batch_size
from bnaudit.verbs.model_folder import completed
from bnaudit.verbs.running import autocast
from bnaudit.verbs.samples import MapReader, Reader
from bnaudit.verbs.sources import Source
from bnaudit.verbs.streams import StreamReader
from bnaudit.verbs.weights import Weights

_NAME_IT = (
    "name it with --model torchvision:NAME, timm:NAME, hf:DIR, path/file.py:factory or "
    "package.module:factory"
)


@dataclass(frozen=True)
class Prepared:
    """The parts of a run, ready to be used by a verb."""

    model: nn.Module
    model_info: ModelInfo
    reader: Reader
    conditions: Conditions
    compare: Callable[[Any, Any], float | Mapping[str, float]] | None
    data_source: str
    transform: str | None
    weights: Weights | None = None
    train: Source | None = None


def prepare(settings: Settings, default_samples: int, ranks: Ranks = ALONE) -> Prepared:
    """Build the model, load the checkpoint and open the data that `settings` name.

    `default_samples`: how many are drawn where the settings do not say; `ranks`: who shares them.

    Raises `InputError` that names the option at fault.
    """
    settings = completed(settings)
    check_said(settings)
    assert settings.data is not None
    device = usable_device(settings.device, "--device")
    conditions = Conditions(
        build_forward(settings.forward) if settings.forward else default_forward,
        device,
        device,
        autocast(settings.dtype),
        settings.channels_last,
        settings.seed,
        ranks,
    )
    compare = build_compare(settings.compare) if settings.compare else None
    transform = build_transform(settings.transform)
    target = open_data(settings.data, settings.data_arg, transform)
    samples = None if settings.samples == "all" else settings.samples or default_samples
    train = _train_data(settings, transform, conditions, samples)
    model, info, weights = _model(settings)
    return Prepared(
        model=model,
        model_info=info,
        reader=reader_for(target, settings, conditions, samples, f"--data {settings.data}"),
        conditions=conditions,
        compare=compare,
        data_source=target.description,
        transform=settings.transform,
        weights=weights,
        train=train,
    )


def check_said(settings: Settings) -> None:
    """That there is enough to begin with; a mistyped checkpoint is told before what is missing."""
    if settings.checkpoint is not None:
        with opened(settings.checkpoint):
            pass
    if settings.data is not None:
        return
    if settings.checkpoint is None and settings.model is None:
        raise InputError(
            "no checkpoint, no model and no data are named, on the command line or in a "
            "bnaudit.toml; `bnaudit init CHECKPOINT` writes one"
        )
    raise InputError(
        "no data: say what to measure on with --data imagefolder:DIR, cifar10:DIR, npz:FILE or "
        "path/file.py:factory"
    )


def _train_data(
    settings: Settings, transform: Transform | None, conditions: Conditions, samples: int | None
) -> Source | None:
    """The training data, where the settings name them."""
    if settings.train_data is None:
        return None
    said = f"--train-data {settings.train_data}"
    target = open_other_data(
        "--train-data", settings.train_data, settings.train_data_arg, transform
    )
    reader = reader_for(target, settings, conditions, samples, said)
    return Source(reader, target.description, settings.transform)


def open_other_data(
    option: str, spec: str, args: Mapping[str, object], transform: Transform | None
) -> DataTarget:
    """What another option than --data names. InputError: its messages speak of that option."""
    try:
        return open_data(spec, args, transform)
    except InputError as error:
        raise InputError(str(error).replace("--data", option)) from error


def _model(settings: Settings) -> tuple[nn.Module, ModelInfo, Weights | None]:
    checkpoint = settings.checkpoint
    if settings.model is None:
        if checkpoint is not None:
            return _pickled_model(checkpoint, trust_pickle=settings.trust_pickle)
        raise InputError(f"no model: {_NAME_IT}")
    model = build_model(settings.model, settings.model_arg)
    info = ModelInfo(settings.model, parameters=0, bn_layers={})
    folder = folder_of(settings.model)
    if checkpoint is None:
        if folder is not None:
            raise no_weights(settings.model, folder)
        note = "no checkpoint: the weights are the factory's own"
        return model, ModelInfo(settings.model, 0, {}, checkpoint_notes=(note,)), None
    load = load_checkpoint if folder is None else load_folder_weights
    report = load(
        model,
        checkpoint,
        key=settings.checkpoint_key,
        allow_mismatch=settings.allow_mismatch,
        trust_pickle=settings.trust_pickle,
    )
    notes = load_notes(report)
    info = ModelInfo(info.source, 0, {}, str(checkpoint), report.sha256, notes, report.key)
    stored = _stored(checkpoint, report.key)
    return model, info, Weights(report.names, report.key, report.dtypes, stored)


def _stored(path: Path, key: str) -> State | None:
    """The BatchNorm layers as the file has them; None where it cannot be read without loading."""
    try:
        return state_of_contents(read_contents(path, key=key or None))
    except InputError:
        return None


def _pickled_model(path: Path, *, trust_pickle: bool) -> tuple[nn.Module, ModelInfo, Weights]:
    """The model of a file that holds a whole one; other files hold weights and need `--model`."""
    checkpoint = read_checkpoint(path, trust_pickle=trust_pickle)
    content, key = checkpoint.content, ""
    if isinstance(content, Mapping):
        found = ((str(k), v) for k, v in content.items() if isinstance(v, nn.Module))
        key, content = next(found, ("", content))
    if not isinstance(content, nn.Module):
        raise InputError(f"{path} holds weights, not the architecture: {_NAME_IT}")
    source = f"pickled {type(content).__qualname__}"
    info = ModelInfo(source, 0, {}, str(path), checkpoint.sha256, checkpoint_key=key)
    tensors = {n: t for n, t in content.state_dict().items() if isinstance(t, torch.Tensor)}
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    return content, info, Weights({n: n for n in tensors}, key, dtypes, _stored(path, key))


def load_notes(report: LoadReport) -> tuple[str, ...]:
    """What was chosen while loading, in words: container, prefix, and what did not match."""
    notes = []
    if report.key:
        notes.append(f"state dict found under {report.key!r}")
    if report.other_keys:
        notes.append(f"other state dicts in the file: {', '.join(report.other_keys)}")
    if report.stripped:
        notes.append(f"prefix {report.stripped!r} stripped from its keys")
    if report.added:
        notes.append(f"prefix {report.added!r} added to its keys")
    if report.without_counter:
        notes.append(f"no num_batches_tracked for {len(report.without_counter)} layers")
    if report.ignored:
        notes.append(f"ignored: {', '.join(report.ignored)}")
    if report.missing:
        notes.append(f"kept at their initial value: {_some(report.missing)}")
    if report.mismatched:
        notes.append(f"wrong shape, kept at their initial value: {_some(report.mismatched)}")
    if report.unexpected:
        notes.append(f"not in the model: {_some(report.unexpected)}")
    return tuple(notes)


def _some(names: tuple[str, ...], most: int = 6) -> str:
    shown = ", ".join(map(str, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def reader_for(
    target: DataTarget,
    settings: Settings,
    conditions: Conditions,
    samples: int | None,
    said: str,
) -> Reader:
    """What reads a data target as the settings say; at most `samples` of it.

    `said`: how it was named, for messages.
    """
    if settings.decode == "gpu":
        target = decoded_on_gpu(target, conditions.device)
    if target.dataset is None:
        assert target.stream is not None
        ranks = conditions.ranks
        return StreamReader(target.stream, samples, target.batch_size, said, ranks=ranks)
    size = settings.batch_size or target.batch_size or DEFAULT_BATCH_SIZE
    size = pass_batch_size(size, settings.train_batch_size)
    workers = settings.workers
    if workers == "auto":
        workers = automatic_workers(target, samples, size)
    return MapReader(
        target.dataset,
        size,
        samples,
        settings.seed,
        workers,
        target.collate,
        pin_memory=conditions.device.type == "cuda",
        skip_bad=settings.skip_bad,
        ranks=conditions.ranks,
        finish=target.finish,
    )
