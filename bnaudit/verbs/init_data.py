"""The data to measure on, and how they are prepared, for a new configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bnaudit.checkpoints.messages import listed
from bnaudit.report.starter import Spec
from bnaudit.targets.data import open_data
from bnaudit.targets.found_data import FoundData, find_data, image_sizes, opened
from bnaudit.targets.published import newest_transform, transform_of_file
from bnaudit.targets.transforms import build_transform
from bnaudit.verbs.init_paths import Chosen, relative_spec

IMAGES = ("imagefolder", "tar", "parquet", "cifar10", "npz")
"""Data of which a sample goes through the transform; a factory prepares its own."""


def data_found(here: Path, folder: Path) -> tuple[Chosen, Spec, str | None]:
    """The likeliest held-out data in the folder `here`, the training data, and the spec to open.

    `folder`: of the new file, from which its paths count.
    """
    every = find_data(here)
    training = [found for found in every if found.part == "training"]
    for found in every:
        if found.part == "training":
            continue
        target = opened(found)
        if target is None:
            continue
        about = [f"{target.description.removeprefix(f'{found.spec}: ')}."]
        if found.part == "unnamed":
            about.append("Taken as held out, though its name does not say so: check it.")
        others = [_called(o, folder) for o in every if o != found and o.part != "training"]
        if others:
            about.append(f"Also here: {listed(others)}.")
        setting = Spec(relative_spec(found.spec, folder), found.args, tuple(about))
        said = f"{_called(found, folder)}: {about[0].removesuffix('.')}"
        return Chosen(setting, said), _training(training, folder), found.spec
    what = "nothing here looks like data to measure on (a folder val or test, an .npz, CIFAR-10)"
    if training:
        what += f"; {_called(training[0], folder)} is training data"
    return Chosen(Spec(), missing=what), _training(training, folder), None


def data_given(
    spec: str, args: Mapping[str, object], here: Path, folder: Path
) -> tuple[Chosen, Spec]:
    """What the user names. Raises `InputError` where it cannot be opened."""
    if spec.partition(":")[0] in IMAGES:
        words = open_data(spec, args, None).description.removeprefix(f"{spec}: ")
        chosen = Chosen(Spec(relative_spec(spec, folder), args, (f"{words}.",)), f"{spec}: {words}")
    else:  # a factory, which may want the transform: tried later
        chosen = Chosen(Spec(relative_spec(spec, folder), args), spec)
    training = [found for found in find_data(here) if found.part == "training"]
    return chosen, _training(training, folder)


def check_transform(given: str | None) -> None:
    """Raises `InputError` for a transform that is none."""
    build_transform(given)


def transform_for(
    given: str | None, model: Spec, data: str | None, checkpoint: Path, folder: Path
) -> tuple[Chosen, str | None]:
    """How images are prepared, and what to propose where that is not known.

    Known is the preprocessing of weights that torchvision publishes, by the name of their file.
    `given`: checked. `data`: the spec, as it can be opened here.
    """
    if given is not None:
        return Chosen(Spec(relative_spec(given, folder)), given), None
    if model.spec is not None and not model.args:
        known = transform_of_file(model.spec, checkpoint)
        if known is not None:
            about = f"Published with {checkpoint.name}, by its name."
            return Chosen(Spec(known, about=(about,)), f"{known}, by the checkpoint's name"), None
    proposed = newest_transform(model.spec) if model.spec is not None else None
    if data is None or data.partition(":")[0] not in IMAGES:
        return Chosen(Spec()), proposed
    if len(image_sizes(data)) > 1:
        missing = "the images have different sizes: uncomment the preprocessing of training, or "
        missing += "write it"
        return Chosen(Spec(), missing=missing), proposed
    check = "none: images are RGB divided by 255; if the training did more, uncomment or write it"
    return Chosen(Spec(), check=check), proposed


def _training(found: Sequence[FoundData], folder: Path) -> Spec:
    return Spec(relative_spec(found[0].spec, folder), found[0].args) if found else Spec()


def _called(found: FoundData, folder: Path) -> str:
    args = "".join(f", {name}={value}" for name, value in found.args.items())
    return f"{relative_spec(found.spec, folder)}{args}"
