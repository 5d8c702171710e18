"""What a checkpoint file holds, read without running code from it."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bnaudit.checkpoints.formats import Format, damaged, detect_format, truncated
from bnaudit.checkpoints.messages import first_line, input_error, listed, shortened
from bnaudit.checkpoints.opening import opened
from bnaudit.checkpoints.pickle_names import foreign_names
from bnaudit.checkpoints.plain_data import plain_data_allowed
from bnaudit.errors import InputError

_RESAVE = "re-save the weights where the file comes from: torch.save(model.state_dict(), ...)"
_TRUST = "--trust-pickle loads it all the same by running code from the file: only if you trust it"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint file that has been read.

    `format`: "zip" (torch.save since 1.6), "legacy" (torch.save before) or "safetensors", told by
    the content, whatever the suffix. `sha256`: of the file's bytes, in hexadecimal. `content`: the
    object that was saved, its tensors on the CPU. Tensors of zip and safetensors files are mapped
    from the file, not copied, so the file may be larger than memory and has to stay as it is while
    they are used; writing to such a tensor does not change the file.
    """

    path: Path
    format: Format
    sha256: str
    content: object


def read_checkpoint(path: Path, *, trust_pickle: bool = False) -> Checkpoint:
    """Read the checkpoint at `path`: a zip or legacy file of `torch.save`, or safetensors.

    No code in the file runs: only tensors and the plain data that training scripts put beside them
    are rebuilt (`plain_data`). With `trust_pickle` a file that needs more than that is unpickled
    in full, which runs whatever code its author put in.

    Raises `InputError`, one line that says what to do, for every file that cannot be read: missing,
    a folder, empty, truncated, of another kind, or in need of code.
    """
    path = Path(path)
    with opened(path) as file:
        format_ = detect_format(path, file)
        content = _load(path, file, format_, trust_pickle)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(path=path, format=format_, sha256=digest, content=content)


def _load(path: Path, file: BinaryIO, format_: Format, trust_pickle: bool) -> object:
    if format_ == "safetensors":
        try:
            return load_file(path, device="cpu")
        except (SafetensorError, ValueError, LookupError, AttributeError) as error:
            raise truncated(path, first_line(error)) from None
    legacy = format_ == "legacy"
    with plain_data_allowed():
        try:
            return _torch_load(path, file, legacy=legacy, weights_only=True)
        except OSError:
            raise
        except Exception as error:  # a damaged pickle can fail in any way
            refusal = error
        if not trust_pickle:
            raise _refused(path, file, refusal, legacy=legacy)
    return _load_trusted(path, file, legacy=legacy)


def _refused(path: Path, file: BinaryIO, refusal: Exception, *, legacy: bool) -> InputError:
    """Why a file cannot be read without running code: it is damaged, or asks for code."""
    if not isinstance(refusal, pickle.UnpicklingError):
        return damaged(path, refusal)
    try:
        names = foreign_names(file, legacy=legacy)
    except Exception as error:
        return damaged(path, error)
    return input_error(path, f"{_need_of_code(names, refusal)}; {_RESAVE}; {_TRUST}")


def _load_trusted(path: Path, file: BinaryIO, *, legacy: bool) -> object:
    try:
        return _torch_load(path, file, legacy=legacy, weights_only=False)
    except (ImportError, AttributeError) as error:
        raise input_error(
            path,
            f"its code cannot be found ({first_line(error)}); run where its modules can be "
            f"imported (PYTHONPATH), or {_RESAVE}",
        ) from None
    except Exception as error:  # the file's own code can fail in any way
        raise damaged(path, error) from None


def _torch_load(path: Path, file: BinaryIO, *, legacy: bool, weights_only: bool) -> object:
    file.seek(0)
    mapped = not legacy and _can_be_mapped(path, file)
    file.seek(0)
    with warnings.catch_warnings():
        # torch remarks on pickle protocols and on its own deprecated classes; neither helps a user.
        warnings.simplefilter("ignore")
        source: Any = path if mapped else file
        return torch.load(source, map_location="cpu", weights_only=weights_only, mmap=mapped)


def _can_be_mapped(path: Path, file: BinaryIO) -> bool:
    # torch.load goes by the suffix where it is given a path, and maps bytes as they lie: in an
    # archive that someone packed again they may be compressed.
    if path.suffix == ".safetensors":
        return False
    with zipfile.ZipFile(file) as archive:
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def _need_of_code(names: tuple[str, ...], refusal: Exception) -> str:
    """Why a file cannot be read without running code from it."""
    if names:
        what = "a whole pickled model" if any(".nn.modules." in n for n in names) else "objects"
        return f"holds {what}, not only tensors, and needs code to load: {listed(names)}"
    # torch wraps its reason in advice of its own: the reason is the last line ahead of the link.
    lines = str(refusal).partition("\n\nCheck the documentation")[0].strip().splitlines()
    reason = lines[-1] if lines else "no reason given"
    if "Unsupported operand" in reason:
        reason = "it was saved with a pickle protocol above 2"
    return f"its pickle cannot be read without running code from it ({shortened(reason, 160)})"
