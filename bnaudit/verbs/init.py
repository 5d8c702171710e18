"""A first configuration file for a checkpoint: what can be told is told, the rest is named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bnaudit.atomic import replacing
from bnaudit.checkpoints.contents import Contents, read_contents
from bnaudit.checkpoints.formats import detect_format
from bnaudit.checkpoints.messages import listed, one_line
from bnaudit.checkpoints.opening import opened
from bnaudit.checkpoints.stored_state import state_of_contents
from bnaudit.config import DEFAULT_FILE, find_config, read_config, resolve
from bnaudit.errors import InputError
from bnaudit.findings.shifted import SHIFT_THRESHOLD
from bnaudit.report.starter import Spec, Starter, starter_text
from bnaudit.targets.hugging_face import (
    SCHEME,
    has_processor,
    holds_model,
    no_weights,
    weights_in,
)
from bnaudit.verbs.bars import Bar, no_bar
from bnaudit.verbs.init_candidates import candidates
from bnaudit.verbs.init_data import check_transform, data_found, data_given, transform_for
from bnaudit.verbs.init_model import model_found, model_given, model_in_file, with_candidates
from bnaudit.verbs.init_paths import Chosen, relative_to
from bnaudit.verbs.measure import DEFAULT_BATCH_SIZE, DEFAULT_SAMPLES
from bnaudit.verbs.model_folder import prepares_itself
from bnaudit.verbs.try_settings import why_not_loaded, why_not_measured

Trial = Literal["measured", "loaded"]

SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".safetensors", ".tar")


@dataclass(frozen=True)
class Wanted:
    """What a user says beforehand; the rest is looked for."""

    model: str | None = None
    model_arg: Mapping[str, object] | None = None
    key: str | None = None
    data: str | None = None
    data_arg: Mapping[str, object] | None = None
    transform: str | None = None


@dataclass(frozen=True)
class Initialised:
    """What was written, and what a user should know of it.

    `found`, `check`, `missing`: (what, in words); those to check work, and may be wrong. `tried`:
    whether a few samples were measured, or nothing but the weights loaded, with the file as it is;
    `problem`: what the trial said where it failed. `options`: what has to be said on the command
    line, beside the file. `notes`: what else is so.
    """

    path: Path
    found: tuple[tuple[str, str], ...]
    check: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    tried: Trial | None
    problem: str | None
    options: tuple[str, ...]
    notes: tuple[str, ...]


def init(
    checkpoint: Path | None = None,
    wanted: Wanted | None = None,
    *,
    output: Path | None = None,
    force: bool = False,
    progress: Bar = no_bar,
) -> Initialised:
    """Write a commented `bnaudit.toml` for a checkpoint, as far as it can be told.

    `checkpoint`: the only one in the current folder where it is None. A folder of transformers, or
    the weights in one, say what their model is and how images are prepared. Any other model is one
    of torchvision's or timm's with the same tensors (`find_architectures`); the data are what lies
    in the current folder in a usual form. Where both are there, a few samples are measured with the
    file as it was written; where only the model is there, the weights are loaded into it.
    `output`: bnaudit.toml in the current folder; a file that is there is only replaced with
    `force`, and a folder is made where it is missing.

    Raises `InputError`: no checkpoint or several, one that cannot be read, a model or data that
    were named and cannot be used, a file that is there already or cannot be written. Then nothing
    is written.
    """
    wanted = wanted or Wanted()
    here, output = Path(), output or Path(DEFAULT_FILE)
    _check_output(output, force=force)
    path, wanted = _with_folder(checkpoint or only_checkpoint(here), wanted)
    contents = read_contents(path, key=wanted.key)
    folder = output.parent
    check_transform(wanted.transform)
    data, training, opened_as = _data(wanted, here, folder)
    model = _model(contents, wanted, folder, progress)
    transform, proposed = transform_for(
        wanted.transform, model.setting, opened_as, contents.path, folder
    )
    starter = Starter(
        checkpoint=relative_to(path, folder),
        about=(f"{_facts(contents)}.", *_other_places(contents)),
        key=contents.key if wanted.key is not None or contents.others else None,
        model=model.setting,
        needs_model=not contents.modules,
        data=data.setting,
        train_data=training,
        transform=transform.setting,
        proposed_transform=proposed,
        threshold=SHIFT_THRESHOLD,
        samples=DEFAULT_SAMPLES,
        batch_size=DEFAULT_BATCH_SIZE,
    )
    notes = tuple(_notes(output))
    _write(output, starter_text(starter))
    parts = (("model", model), ("data", data), ("transform", transform))
    missing = [(name, part.missing) for name, part in parts if part.missing]
    found = [(name, part.found) for name, part in parts if part.found]
    needs_trust = bool(contents.modules)
    can_be_tried = model.setting.spec is not None and model.missing is None and not needs_trust
    tried, problem = _try(output, missing) if can_be_tried else (None, None)
    return Initialised(
        path=output,
        found=(("checkpoint", f"{path}: {_facts(contents)}"), *found),
        check=tuple((name, part.check) for name, part in parts if part.check),
        missing=tuple(missing),
        tried=tried,
        problem=problem,
        options=("--trust-pickle",) if needs_trust else (),
        notes=notes,
    )


def _try(output: Path, missing: Sequence[object]) -> tuple[Trial, str | None]:
    """What of the settings could be tried, and what was wrong with it."""
    settings = resolve({}, read_config(output))
    if missing:
        return "loaded", why_not_loaded(settings)
    return "measured", why_not_measured(settings)


def _with_folder(path: Path, wanted: Wanted) -> tuple[Path, Wanted]:
    """The checkpoint file, and what the folder of transformers around it says of its model."""
    folder = path if path.is_dir() else path.parent
    weights = weights_in(folder)
    if not holds_model(folder) or (path != folder and path != weights):
        return path, wanted
    spec = f"{SCHEME}:{folder}"
    if weights is None:
        raise no_weights(spec, folder)
    if wanted.model is not None:
        return weights, wanted
    of_factory = wanted.data is not None and prepares_itself(wanted.data)
    transform = spec if has_processor(folder) and not of_factory else None
    return weights, replace(wanted, model=spec, transform=wanted.transform or transform)


def only_checkpoint(folder: Path) -> Path:
    """The one checkpoint file in a folder. Raises `InputError` for none, and for several."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if len(files) > 1:
        files = [path for path in files if _is_checkpoint(path)] or files
    if not files:
        raise InputError(
            f"no checkpoint: no file in this folder ends in {', '.join(SUFFIXES)}; name it"
        )
    if len(files) > 1:
        names = listed((path.name for path in files), 8)
        raise InputError(
            f"which checkpoint? there are {len(files)} in this folder: {names}; name one, as "
            f"bnaudit init {one_line(files[0].name)}"
        )
    return files[0]


def _is_checkpoint(path: Path) -> bool:
    try:
        with opened(path) as file:
            detect_format(path, file)
    except InputError:
        return False
    return True


def _model(contents: Contents, wanted: Wanted, folder: Path, progress: Bar) -> Chosen:
    if wanted.model is not None:
        return model_given(contents, wanted.model, wanted.model_arg or {}, folder)
    if wanted.model_arg:
        raise InputError(
            f"--model-arg {next(iter(wanted.model_arg))}: of which model? give --model"
        )
    if contents.modules:
        return model_in_file(contents)
    found = model_found(contents, progress)
    if found.setting.spec is not None:
        return found
    return with_candidates(found, candidates([contents.path.parent, Path()]), folder)


def _data(wanted: Wanted, here: Path, folder: Path) -> tuple[Chosen, Spec, str | None]:
    if wanted.data is not None:
        return (*data_given(wanted.data, wanted.data_arg or {}, here, folder), wanted.data)
    if wanted.data_arg:
        raise InputError(f"--data-arg {next(iter(wanted.data_arg))}: of which data? give --data")
    return data_found(here, folder)


def _facts(contents: Contents) -> str:
    state = state_of_contents(contents)
    layers, lost = len(state.layers), len(state.incomplete)
    where = f" under {contents.key}" if contents.key else ""
    norms = f"{layers} BatchNorm layer{'s' * (layers != 1)}" if layers else "no BatchNorm layers"
    norms += f", {lost} that lost a part of their statistics" if lost else ""
    return f"{len(contents.tensors)} tensors{where}, {norms}"


def _other_places(contents: Contents) -> tuple[str, ...]:
    others = listed(contents.others)
    return (f"Other weights in the file: {others}.",) if others else ()


def _notes(output: Path) -> Iterator[str]:
    try:
        other = find_config(output.parent)
    except InputError:  # a pyproject.toml that is none is nothing to us
        return
    if output.name == DEFAULT_FILE and other is not None and other.name != DEFAULT_FILE:
        yield f"{other} has a table [tool.bnaudit], which is not read beside a {DEFAULT_FILE}"


def _check_output(output: Path, *, force: bool) -> None:
    if output.is_dir():
        raise InputError(f"{output} is a folder: name a file, as -o {output / DEFAULT_FILE}")
    if os.path.lexists(output) and not force:
        raise InputError(
            f"{output} is there already: --force replaces it, -o FILE writes another one"
        )
    there = output.parent
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{output}: {there} is no folder; name a file in one")


def _write(output: Path, text: str) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error}") from error
