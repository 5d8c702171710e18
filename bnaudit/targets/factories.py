"""What a user calls `path/file.py:name` or `package.module:name` -> the object of that name."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from bnaudit.config import SCHEMES
from bnaudit.errors import BnauditError, InputError
from bnaudit.regular_files import with_home
from bnaudit.targets.messages import did_you_mean, kind_of, listed, near, told
from bnaudit.targets.user_files import append_to_path, import_file, no_bytecode

_WORDS = {"true": True, "false": False, "none": None}


def load_factory(spec: str, *, option: str) -> Callable[..., Any]:
    """The callable that `path/file.py:name` or `package.module:name` names; it is not called.

    A file runs once, its siblings are importable, and no `__pycache__` is left in its folder. Its
    classes can be pickled to DataLoader workers, forked or spawned. A package is looked for among
    the installed ones, then in the current folder. `name` may be dotted (`Builder.make`).

    `option` (`--model`, `--data`) is what the message names. InputError: no `:name`, no such file,
    module or name, a name that is not callable, or an import that raises.
    """
    source, name = _split(spec, option)
    said = f"{option} {spec}"
    module = _import_file(source, said) if source.endswith(".py") else _import_module(source, said)
    return _attribute(module, name, source, said)


def call_factory(
    factory: Callable[..., Any], args: Mapping[str, object], *, option: str, spec: str
) -> Any:
    """`factory(**args)`, with whatever goes wrong told in one line.

    `option` and `spec` are the user's own words for the factory; its arguments are those of
    `{option}-arg`. InputError: an argument that the factory does not take (the message lists those
    it does), one that it needs, or an exception raised inside (the message has its file and line).
    """
    _check_arguments(factory, args, option=option, spec=spec)
    try:
        with no_bytecode():
            return factory(**args)
    except BnauditError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{option} {spec} raised {told(error)}") from error


def parse_args(pairs: Sequence[str], *, option: str) -> dict[str, object]:
    """The `key=value` pairs of an option such as `--model-arg`.

    A value is a Python literal where it reads as one (`10`, `1e-3`, `(2, 2)`, `'10'`), the words
    true, false and none in any case, and else the string itself. InputError: no `=`, a key that is
    no Python name, the same key twice.
    """
    parsed: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals:
            raise InputError(f"{option} {pair}: write it as key=value")
        if not key.isidentifier():
            remedy = key.replace("-", "_")
            hint = f": write {remedy}={value}" if remedy.isidentifier() else ""
            raise InputError(f"{option} {pair}: {key!r} is not an argument's name{hint}")
        if key in parsed:
            raise InputError(f"{option} {pair}: {key} is given twice")
        parsed[key] = _literal(value)
    return parsed


def parameters_of(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a callable by name; None where Python cannot tell (some builtins)."""
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None


def needed_by(factory: Callable[..., Any]) -> list[str]:
    """The parameters that a callable cannot do without."""
    return [
        name
        for name, parameter in (parameters_of(factory) or {}).items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _split(spec: str, option: str) -> tuple[str, str]:
    source, _, name = spec.rpartition(":")
    if spec.endswith(".py"):
        raise InputError(f"{option} {spec}: say which function of the file, as {spec}:NAME")
    if not source or not name:
        raise InputError(
            f"{option} {spec}: a factory is written path/file.py:NAME or package.module:NAME"
        )
    return source, name


def _import_file(source: str, said: str) -> ModuleType:
    file = with_home(source)
    if not file.is_file():
        raise InputError(f"{said}: {_missing_file(file)}")
    file = file.resolve()
    try:
        return import_file(file)
    except BnauditError as error:
        raise InputError(f"{said}: {error}") from error
    except (Exception, SystemExit) as error:
        hint = _hidden_sibling(error, file.parent)
        raise InputError(f"{said}: importing {source} raised {told(error)}{hint}") from error


def _missing_file(file: Path) -> str:
    if file.is_dir():
        return f"{file} is a folder"
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}"
    names = near(file.stem, (other.stem for other in file.parent.glob("*.py")))
    hint = f"; did you mean {', '.join(f'{name}.py' for name in names)}?" if names else ""
    return f"there is no file {file}{hint}"


def _hidden_sibling(error: BaseException, folder: Path) -> str:
    """Says so where an import failed because another module has a sibling's name."""
    if not isinstance(error, ImportError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    beside = [path for path in (folder / f"{top}.py", folder / top) if path.exists()]
    origin = getattr(sys.modules.get(top), "__file__", None)
    if not beside or origin is None or Path(origin).is_relative_to(folder):
        return ""
    return f"; {top} is {origin}, which comes before {beside[0]}: rename the latter"


def _import_module(source: str, said: str) -> ModuleType:
    top = source.partition(".")[0]
    try:
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            # An installed program has no current folder on its path; `python -m` has.
            append_to_path(Path.cwd())
        with no_bytecode():
            return importlib.import_module(source)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{source}.".startswith(f"{error.name}."):
            scheme = near(source, SCHEMES, count=1)
            hint = (
                f"did you mean {scheme[0]}:{said.partition(':')[2]}?"
                if scheme
                else "a file is written path/file.py:NAME"
            )
            raise InputError(
                f"{said}: no module named {error.name} is installed, or in the current folder; "
                f"{hint}"
            ) from error
        raise InputError(f"{said}: importing {source} raised {told(error)}") from error


def _attribute(module: ModuleType, name: str, source: str, said: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{said}: {source} has no {name}{_instead(module, name)}")
        found = getattr(found, part)
    if not callable(found):
        kind = kind_of(found)
        raise InputError(f"{said}: {name} is {kind}, not a function{_instead(module, name)}")
    return found  # type: ignore[no-any-return]


def _instead(module: ModuleType, name: str) -> str:
    names = [
        key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
    ]
    if near(name, names):
        return did_you_mean(name, names)
    # Nothing alike: what the module defines itself, not what it imports.
    own = [key for key in names if getattr(vars(module)[key], "__module__", "") == module.__name__]
    return f"; it defines {listed(own)}"


def _check_arguments(
    factory: Callable[..., Any], args: Mapping[str, object], *, option: str, spec: str
) -> None:
    parameters = parameters_of(factory)
    if parameters is None:
        return
    by_name = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in args if name not in by_name]
    if unknown and not open_ended:
        accepts = f"it accepts {listed(by_name, most=20)}"
        raise InputError(
            f"{option}-arg {unknown[0]}: {spec} takes no such argument; {accepts}"
            f"{did_you_mean(unknown[0], by_name)}"
        )
    wanted = [name for name in needed_by(factory) if name not in args]
    if wanted:
        give = " ".join(f"{option}-arg {name}=VALUE" for name in wanted)
        raise InputError(f"{option} {spec} needs {', '.join(wanted)}: give {give}")


def _literal(value: str) -> object:
    word = value.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
