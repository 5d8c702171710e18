"""Opening a checkpoint file, whatever stands under its name."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from bnaudit.checkpoints.messages import first_line, input_error, listed, near_names
from bnaudit.errors import InputError


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file at `path`, for reading.

    Raises `InputError` where there is none, where it is no regular file, and for whatever the
    system says while it is open.
    """
    try:
        _check_is_file(path)
        with path.open("rb") as file:
            yield file
    except PermissionError:
        raise input_error(path, "no permission to read it; change its mode or copy it") from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise input_error(path, f"cannot be read ({reason}); check the path") from None


def _check_is_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None
    except ValueError:  # a null byte in the name
        raise input_error(path, "not a file name; check the path") from None
    if stat.S_ISDIR(mode):
        raise _directory(path)
    if not stat.S_ISREG(mode):
        raise input_error(path, "not a regular file; copy what it delivers into a file first")


def _missing(path: Path) -> InputError:
    if not path.parent.is_dir():
        return input_error(path, f"no such file: there is no folder {path.parent}; check the path")
    near = near_names(path)
    hint = f"did you mean {listed(near)}?" if near else "check the path"
    return input_error(path, f"no such file; {hint}")


def _directory(path: Path) -> InputError:
    names = sorted(entry.name for entry in path.iterdir())
    if ".metadata" in names:
        return input_error(
            path,
            "a distributed checkpoint (a folder of shards), which is not supported; convert it: "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE",
        )
    suffixes = (".pt", ".pth", ".th", ".ckpt", ".bin", ".safetensors", ".tar")
    files = [name for name in names if name.endswith(suffixes)]
    hint = f"it holds {listed(files)}" if files else "name the checkpoint file"
    return input_error(path, f"a folder, not a file; {hint}")
