"""Python files nearby that may define the model: read, never run."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnaudit.text_files import UnreadableError, read_text

LARGEST = 2**20
"""Bytes of a file that is looked into. What people write by hand is a tenth of it."""

MOST_FILES = 100
"""So many of a folder are looked into."""

_LIBRARIES = {"torch", "torchvision", "timm"}
_BASES = ("Module", "Sequential")
_WORDS = ("model", "net", "build", "create", "make")


@dataclass(frozen=True)
class Candidate:
    """A file that uses torch, and what may give a model in it, the likeliest first."""

    file: Path
    names: tuple[str, ...]


def candidates(folders: Sequence[Path]) -> tuple[Candidate, ...]:
    """The files in these folders that define functions or classes, and import torch.

    Each folder is looked into once, those below it not at all. Files that are no Python, too large
    or not readable are passed over. The names are those that can be used from outside: without an
    underscore in front, at the top of the file.
    """
    once = {os.path.realpath(folder): folder for folder in reversed(folders)}
    found = (_candidate(file) for folder in reversed(once.values()) for file in _files(folder))
    return tuple(one for one in found if one is not None)


def _files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".py")
    except OSError:
        return []
    # A spec parts the file from the name by a colon.
    return [path for path in files if not path.name.startswith((".", "test_")) and _plain(path)][
        :MOST_FILES
    ]


def _plain(path: Path) -> bool:
    return ":" not in path.name and path.name.isprintable()


def _candidate(file: Path) -> Candidate | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of their own escapes, which concern nobody here
            tree = ast.parse(read_text(file, largest=LARGEST))
        if not _uses_torch(tree):
            return None
    except (UnreadableError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = sorted(_definitions(tree), key=_rank)
    return Candidate(file, tuple(node.name for node in names)) if names else None


def _uses_torch(tree: ast.Module) -> bool:
    return any(name.partition(".")[0] in _LIBRARIES for name in _imported(tree))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _definitions(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    return [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]


def _rank(node: ast.FunctionDef | ast.ClassDef) -> tuple[bool, bool]:
    """What is called like a model, or is a module, comes first; functions before classes."""
    is_class = isinstance(node, ast.ClassDef)
    if isinstance(node, ast.ClassDef):
        likely = any(ast.unparse(base).endswith(_BASES) for base in node.bases)
    else:
        likely = any(word in node.name.lower() for word in _WORDS)
    return (not likely, is_class)
