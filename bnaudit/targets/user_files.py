"""A user's Python file as a module that every process can import again.

A class of the file is pickled by its module's name, so a DataLoader worker has to be able to import
that name, also one that was spawned and shares nothing with this process. The file's own stem will
not do: `data.py` or `random.py` would hide, or be hidden by, another module. So a file is a
submodule of this one, whose name spells the file's path:

    /home/me/net.py  ->  bnaudit.targets.user_files._2fhome_2fme_2fnet_2epy

Importing that name anywhere imports this module first, and with it the finder that reads the path
back. The file's folder is put at the end of `sys.path`, and stays there (a spawned worker inherits
it): imports of sibling files work, at any time, and can never hide an installed module.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

from bnaudit.errors import InputError

# A module with a `__path__` may have submodules; ours are found by the finder below.
__path__: list[str] = []


@contextmanager
def no_bytecode() -> Iterator[None]:
    """Import without writing `__pycache__` into anybody's folder; the setting is put back after."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def import_file(file: Path) -> ModuleType:
    """The module of a Python file, imported once per process.

    A file that is loaded already (as somebody's sibling, as part of a package) is not run again. A
    file with relative imports is imported as the part of its package that it is.

    `file` exists and is absolute. Whatever the file raises comes out as it is; InputError where it
    has relative imports and no package around it, or another package of that name is installed.
    """
    loaded = _loaded_from(file)
    if loaded is not None:
        return loaded
    root, dotted = _package_of(file)
    append_to_path(file.parent)
    append_to_path(root)
    with no_bytecode():
        if _has_relative_imports(file):
            return _import_from_package(file, root, dotted)
        return importlib.import_module(f"{__name__}.{_name_of(file)}")


def append_to_path(folder: Path) -> None:
    """Make a folder's modules importable, after everything that is importable already."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _loaded_from(file: Path) -> ModuleType | None:
    for name, module in list(sys.modules.items()):
        # Through __dict__: lazy modules import things when they are asked for an attribute.
        origin = getattr(module, "__dict__", {}).get("__file__")
        if origin == str(file) and name != "__main__":
            return module
    return None


def _package_of(file: Path) -> tuple[Path, str]:
    """The folder that holds the file's outermost package, and the file's dotted name from there."""
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").is_file() and root.parent != root:
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def _has_relative_imports(file: Path) -> bool:
    tree = ast.parse(file.read_bytes(), filename=str(file))
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))


def _import_from_package(file: Path, root: Path, dotted: str) -> ModuleType:
    top = dotted.partition(".")[0]
    if top == dotted:
        raise InputError(
            f"{file} has relative imports but is not part of a package: import its siblings by "
            "their plain names, or put an __init__.py beside it"
        )
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin != str(root / top / "__init__.py"):
        taken = "" if spec is None or not spec.origin else f" ({spec.origin})"
        raise InputError(
            f"{file} has relative imports, but another module is called {top}{taken}: give the "
            f"factory as package.module:name, or rename the folder {root / top}"
        )
    return importlib.import_module(dotted)


def _name_of(file: Path) -> str:
    """The path as an identifier: letters and digits stay, any other byte is `_` and its hex."""
    return "".join(
        chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"_{byte:02x}"
        for byte in os.fsencode(file)
    )


def _file_of(name: str) -> Path:
    bytes_ = re.sub(rb"_([0-9a-f]{2})", lambda hit: bytes.fromhex(hit[1].decode()), name.encode())
    return Path(os.fsdecode(bytes_))


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        file = Path(self.path)
        append_to_path(file.parent)
        alias = file.stem if _is_free(file) else None
        if alias is not None:
            # A sibling that imports this file by its plain name gets this module, not a second one.
            sys.modules[alias] = module
        try:
            with no_bytecode():
                super().exec_module(module)
        except BaseException:
            if alias is not None:
                sys.modules.pop(alias, None)
            raise


def _is_free(file: Path) -> bool:
    """Whether the file's stem is a module name that means this file, or nothing yet."""
    if not file.stem.isidentifier() or file.stem in sys.modules:
        return False
    spec = importlib.util.find_spec(file.stem)
    return spec is None or spec.origin == str(file)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != __name__:
            return None
        file = _file_of(name)
        if not (file.is_absolute() and file.is_file()):
            return None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Loader(fullname, str(file))
        )


sys.meta_path.append(_Finder())
