"""A folder as transformers saves models -> the model in it, built without downloading anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

from bnaudit.errors import InputError
from bnaudit.regular_files import with_home
from bnaudit.targets.factories import call_factory
from bnaudit.targets.messages import did_you_mean, listed, one_line

SCHEME = "hf"
CONFIG = "config.json"
INDEX = ".index.json"
"""How the name of the index of sharded weights ends."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_HEADS = ("IMAGE_CLASSIFICATION", "OBJECT_DETECTION", "SEMANTIC_SEGMENTATION")
_OWN_CODE = (
    "which bnaudit does not run: build it in a path/file.py:NAME of your own, and give the weights "
    "as the CHECKPOINT"
)


def folder_of(spec: str | None) -> Path | None:
    """The folder of a spec `hf:DIR`, whether it exists or not; None for any other spec."""
    scheme, colon, place = (spec or "").partition(":")
    return with_home(place) if colon and scheme == SCHEME else None


def weights_in(folder: Path) -> Path | None:
    """The file with a folder's weights, as transformers would choose it; None where there is none.

    Safetensors before torch.save, one file before the index of several.
    """
    files = (folder / f"{name}{end}" for name in _WEIGHTS for end in ("", INDEX))
    return next((file for file in files if file.is_file()), None)


def has_processor(folder: Path) -> bool:
    """Whether the folder says how images are prepared for its model."""
    if any((folder / name).is_file() for name in _PROCESSORS):
        return True
    try:
        return _is_of_timm(_settings(folder, ""))
    except InputError:
        return False


def holds_model(folder: Path) -> bool:
    """Whether it is a folder with a configuration of transformers or timm."""
    try:
        settings = _settings(folder, "")
    except InputError:
        return False
    return "model_type" in settings or _is_of_timm(settings)


def no_weights(spec: str, folder: Path) -> InputError:
    """The error about a folder that `weights_in` finds nothing in."""
    return InputError(
        f"--model {spec}: {folder} has no weights ({', '.join(_WEIGHTS)}, or the index of their "
        "shards): name a CHECKPOINT"
    )


def build_from_folder(spec: str, args: Mapping[str, object]) -> Any:
    """The model that `--model hf:DIR` describes, an `nn.Module` with random weights, in float32.

    DIR/config.json says what it is: the class that `architectures` names, else the first that
    transformers has for the `model_type` among image classification, object detection, semantic
    segmentation and the bare model. `args` (from `--model-arg`) replace values of the
    configuration, such as `num_labels`. Nothing is downloaded, a backbone's weights included, and
    no code in the folder runs.

    InputError: transformers not installed, no folder, no configuration or one that cannot be read,
    a class that is unknown, in need of code or of a download, or takes no images.
    """
    folder = folder_of(spec)
    assert folder is not None
    said = f"--model {spec}"
    if spec == f"{SCHEME}:":
        raise InputError(f"{said}: say which folder, as {SCHEME}:DIR")
    settings = _settings(folder, said)
    library = transformers_for(said)
    with offline(said):
        config = _config(library, settings, args, spec)
        model_class = _class(library, settings, config, said)
        return call_factory(model_class, {"config": config}, option="--model", spec=spec)


def names_in_model(model: Any, names: Iterable[str]) -> dict[str, str]:
    """What transformers calls each of a file's `names` in `model`, by the name in the file.

    Its models have changed names over the years, and it renames what files say while it loads them:
    a DETR's `backbone.conv_encoder` is its `backbone` today. Names that it leaves are their own;
    those of tensors that it merges or splits are left too.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    steps = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]
    own = set(model.state_dict())
    renamed: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        new = name
        for step in steps:
            new, _ = step.rename_source_key(new)
        renamed[name] = name if name in own or new in taken else new
        taken.add(renamed[name])
    return renamed


def transformers_for(said: str) -> ModuleType:
    """The library. InputError where it is not installed, too old, or refuses its surroundings."""
    try:
        import transformers
        import transformers.conversion_mapping
    except ImportError as error:
        reasons = {
            "transformers": "transformers is not installed",
            "transformers.conversion_mapping": "transformers is older than version 5",
        }
        why = reasons.get(error.name or "", f"transformers cannot be imported: {one_line(error)}")
        raise InputError(f"{said}: {why}: pip install -U 'bnaudit[hf]'") from error
    return transformers


@contextmanager
def offline(said: str) -> Iterator[None]:
    """Whatever a library would get from the hub meanwhile is an InputError; its remarks are few."""
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled
    from transformers.utils import logging

    was_offline, verbosity = constants.HF_HUB_OFFLINE, logging.get_verbosity()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    try:
        yield
    except Exception as error:
        if any(isinstance(cause, OfflineModeIsEnabled) for cause in _causes(error)):
            wanted = str(_causes(error)[0]).partition(": offline mode")[0]
            raise InputError(
                f"{said}: it names something that is not in the folder, and nothing is downloaded "
                f"({wanted}): load it with transformers, and save it anew with save_pretrained"
            ) from error
        raise
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        logging.set_verbosity(verbosity)


def _causes(error: BaseException) -> list[BaseException]:
    """The exception and those behind it, the innermost first."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.insert(0, at)
        at = at.__cause__ or at.__context__
    return chain


def _settings(folder: Path, said: str) -> dict[str, Any]:
    """What config.json says."""
    file = folder / CONFIG
    if not folder.is_dir():
        name = str(folder)
        on_the_hub = name.count("/") == 1 and not name.startswith((".", "/"))
        get = f": get it first (hf download {name} --local-dir DIR)" if on_the_hub else ""
        raise InputError(f"{said}: there is no folder {folder}, and nothing is downloaded{get}")
    if not file.is_file():
        raise InputError(
            f"{said}: {folder} has no {CONFIG}: name a folder that save_pretrained wrote"
        )
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{said}: {file} cannot be read: {one_line(error)}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{said}: {file} is no table of settings")
    return settings


def _is_of_timm(settings: Mapping[str, Any]) -> bool:
    return "architecture" in settings and "pretrained_cfg" in settings


def _config(
    library: ModuleType, settings: dict[str, Any], args: Mapping[str, object], spec: str
) -> Any:
    """The configuration object, with the user's `args` in it."""
    said = f"--model {spec}"
    # timm writes folders of its own, which transformers reads.
    kind = settings.get("model_type", "timm_wrapper" if _is_of_timm(settings) else None)
    if kind not in library.CONFIG_MAPPING:
        if "auto_map" in settings:
            raise InputError(f"{said}: model_type {kind!r} needs code of its own, {_OWN_CODE}")
        hint = did_you_mean(str(kind), library.CONFIG_MAPPING)
        raise InputError(
            f"{said}: transformers {library.__version__} has no model_type {kind!r}"
            f"{hint or '; a newer one may'}"
        )
    config_class = library.CONFIG_MAPPING[kind]
    config = _made(config_class, settings, {}, said)
    known = {*settings, *config.to_dict(), *config.attribute_map, "num_labels"}
    for name in args:
        if name not in known:
            raise InputError(
                f"--model-arg {name}: {config_class.__name__} has no such setting"
                f"{did_you_mean(name, known)}"
            )
    return _made(config_class, settings, args, said) if args else config


def _made(
    config_class: Any, settings: dict[str, Any], args: Mapping[str, object], said: str
) -> Any:
    try:
        return config_class.from_dict(_without_pretrained_parts(settings), **args)
    except Exception as error:  # any setting may be wrong in its own way
        raise InputError(
            f"{said}: {config_class.__name__} refuses the settings: {one_line(error)}"
        ) from error


def _without_pretrained_parts(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, told not to fetch weights for a backbone: the checkpoint has them."""
    plain = deepcopy(settings)
    for part in (plain, plain.get("backbone_config")):
        if isinstance(part, dict) and "use_pretrained_backbone" in part:
            part["use_pretrained_backbone"] = False
    if isinstance(plain.get("model_args"), dict):
        plain["model_args"].pop("num_classes", None)  # transformers says it to timm a second time
    return plain


def _class(library: ModuleType, settings: dict[str, Any], config: Any, said: str) -> Any:
    names = settings.get("architectures") or []
    found = _named(library, names, settings, said) if names else _by_kind(library, config, said)
    wanted = getattr(found, "main_input_name", None)
    if not str(wanted).startswith("pixel_values"):
        raise InputError(
            f"{said}: {found.__name__} is no vision model: it takes {wanted}, not pixel_values"
        )
    return found


def _named(library: ModuleType, names: Any, settings: dict[str, Any], said: str) -> Any:
    name = str(names[0] if isinstance(names, list) else names)
    found = getattr(library, name, None)
    if isinstance(found, type) and issubclass(found, library.PreTrainedModel):
        return found
    if "auto_map" in settings:
        raise InputError(f"{said}: {name} needs code of its own, {_OWN_CODE}")
    models = [one for one in dir(library) if "For" in one or one.endswith("Model")]
    raise InputError(
        f"{said}: transformers {library.__version__} has no model {name}"
        f"{did_you_mean(name, models)}"
    )


def _by_kind(library: ModuleType, config: Any, said: str) -> Any:
    """Of a configuration that names no class."""
    mappings = [f"MODEL_FOR_{head}_MAPPING" for head in _HEADS]
    for mapping in (*mappings, "MODEL_MAPPING"):
        found = getattr(library, mapping).get(type(config), None)
        if found is not None:
            return found[0] if isinstance(found, tuple) else found
    heads = listed(head.lower().replace("_", " ") for head in _HEADS)
    raise InputError(
        f"{said}: its {CONFIG} names no `architectures`, and transformers has none for {heads} of "
        f"model_type {config.model_type!r}: add the class's name"
    )
