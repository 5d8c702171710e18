"""The model that a checkpoint belongs to, for a new configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from bnaudit.checkpoints.contents import Contents
from bnaudit.checkpoints.messages import listed
from bnaudit.config import NAME_SCHEMES
from bnaudit.report.starter import Spec
from bnaudit.targets.hugging_face import folder_of, names_in_model
from bnaudit.targets.models import build_model
from bnaudit.targets.outlines import Shapes, shapes_of
from bnaudit.verbs.architectures import find_architectures
from bnaudit.verbs.bars import Bar
from bnaudit.verbs.fitting import Difference, Fit, difference, fit
from bnaudit.verbs.init_candidates import Candidate
from bnaudit.verbs.init_paths import Chosen, relative_spec

TWINS = "They can differ in what shapes do not show: strides, padding, eps."

_SHOWN = 3


def model_in_file(contents: Contents) -> Chosen:
    """Of a file that holds a whole pickled model."""
    about = (
        "The file holds the model itself: it needs no `model`, but --trust-pickle on the command "
        "line, which runs the code that the file names."
    )
    return Chosen(Spec(about=(about,)), "in the checkpoint (pickled): needs --trust-pickle")


def model_found(contents: Contents, progress: Bar) -> Chosen:
    """The plainest of torchvision's and timm's models that fit; else the nearest, in words."""
    shapes = shapes_in(contents)
    search = find_architectures(shapes, file=contents.path.name, progress=progress)
    if search.exact:
        best, *twins = search.exact
        about = [f"All {best.difference.shared} tensors fit it by name and shape."]
        if twins:
            others = ", ".join(map(_called, twins))
            about.append(f"Also fits: {others}. {TWINS}")
        also = f"; also fits: {listed((t.spec for t in twins), _SHOWN)}" if twins else ""
        return Chosen(Spec(best.spec, best.args, tuple(about)), f"{_called(best)}{also}")
    timm = " or timm" if find_spec("timm") else " (timm is not installed)"
    none = f"no model of torchvision{timm} has these tensors"
    names = list(shapes)
    about = [f"{none[0].upper()}{none[1:]} ({len(names)}, from {names[0]} to {names[-1]})."]
    nearest = search.nearest
    near = ""
    if nearest is not None:
        apart = differences_in_words(nearest.difference)
        about.append(f"The nearest is {_called(nearest)}: {apart}.")
        near = f"; the nearest, {_called(nearest)}, differs in {nearest.difference.size} tensors"
    return Chosen(Spec(about=tuple(about)), missing=f"{none}{near}")


def with_candidates(chosen: Chosen, files: Sequence[Candidate], folder: Path) -> Chosen:
    """A missing model, with the Python files nearby that may define it."""
    if not files:
        return chosen
    specs = []
    for one in files[:_SHOWN]:
        first, *others = one.names
        also = f"; so may {listed(others, _SHOWN)}" if others else ""
        spec = relative_spec(f"{one.file}:{first}", folder)
        specs.append((spec, f"may be it{also}"))
    names = listed((f'model = "{spec}"' for spec, _ in specs), _SHOWN)
    more = f" (and {len(files) - _SHOWN} more .py files)" if len(files) > _SHOWN else ""
    return replace(
        chosen,
        setting=replace(chosen.setting, candidates=tuple(specs)),
        missing=f"{chosen.missing}; there may be one of your own: {names}{more}",
    )


def model_given(contents: Contents, spec: str, args: Mapping[str, object], folder: Path) -> Chosen:
    """The one that the user names, and whether it fits. Raises `InputError` as `build_model`."""
    shapes = shapes_in(contents)
    if spec.partition(":")[0] in NAME_SCHEMES:
        found = fit(spec, shapes, args)
    else:
        model = build_model(spec, args)
        if folder_of(spec) is not None:
            renamed = names_in_model(model, shapes)
            shapes = {renamed[name]: shape for name, shape in shapes.items()}
        found = Fit(spec, args, difference(shapes, shapes_of(model)))
    apart = found.difference
    called = _called(found)
    setting = Spec(relative_spec(spec, folder), found.args)
    if apart.exact:
        return Chosen(setting, f"{called}: all {apart.shared} tensors fit")
    words = differences_in_words(apart)
    return Chosen(
        Spec(setting.spec, setting.args, (f"It does not fit: {words}.",)),
        missing=f"{called} does not fit the checkpoint: {words}",
    )


def differences_in_words(apart: Difference) -> str:
    """How many tensors fit, and which are missing, unexpected, or of another shape."""
    parts = [f"{apart.shared} tensors fit"]
    for names, what in (
        (apart.missing, "only in the model"),
        (apart.unexpected, "only in the file"),
        (tuple(map(str, apart.mismatched)), "of another shape"),
    ):
        if names:
            parts.append(f"{len(names)} {what}: {listed(names, _SHOWN)}")
    return "; ".join(parts)


def shapes_in(contents: Contents) -> Shapes:
    """The shapes of a checkpoint's tensors, by the names in the file."""
    return {name: tensor.shape for name, tensor in contents.tensors.items()}


def _called(one: Fit) -> str:
    args = ", ".join(f"{name}={value}" for name, value in one.args.items())
    return f"{one.spec} with {args}" if args else one.spec
