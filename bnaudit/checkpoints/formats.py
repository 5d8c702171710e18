"""Which format a checkpoint file has, told by its content; what else it is, where it is none."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import BinaryIO, Literal

from bnaudit.checkpoints.messages import first_line, input_error, listed
from bnaudit.errors import InputError

Format = Literal["zip", "legacy", "safetensors"]

# The first thing that torch.save pickles into a legacy file: 0x1950a86a20f9469cfc6c.
_LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")

_RESAVE = "re-save the weights with torch.save(model.state_dict(), ...)"
_WANTED = "bnaudit reads files of torch.save and safetensors"

# Of an archive that somebody packed again: more than this, and than this many times its size, is
# not unpacked. Trained weights are packed to nine tenths, half of them zeros to a half.
_MOST_UNPACKED = 2**28
_MOST_TIMES = 100

# How files begin that are not checkpoints, and what to do about each.
_KNOWN_STARTS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
    ),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file (Keras?); {_WANTED}"),
    (b"\x93NUMPY", f"a NumPy array file; {_WANTED}"),
    (b"GGUF", f"a GGUF file; {_WANTED}"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
)


def detect_format(path: Path, file: BinaryIO) -> Format:
    """The format of the open file, whatever its suffix; its structure is checked to be whole.

    Raises `InputError` for an empty or truncated file and for everything that is not weights in
    one of the three formats, saying what the file is instead.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(1024)
    if not head:
        raise input_error(path, "the file is empty; copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, file)
        return "zip"
    if _LEGACY_MAGIC in head[:32]:
        return "legacy"
    if head[8:9] == b"{" and not head.startswith((b"{", b"[")):
        _check_safetensors(path, file, size)
        return "safetensors"
    raise input_error(path, _what_it_is(path, head))


def truncated(path: Path, detail: str) -> InputError:
    """The error about a file that ends too early, or whose parts contradict each other."""
    return input_error(path, f"truncated or damaged ({detail}); copy or download it again")


def damaged(path: Path, error: Exception) -> InputError:
    """The error about a file that could not be read to its end."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return input_error(path, "needs more memory than there is, or is damaged; check the file")
    return truncated(path, first_line(error))


def _check_zip(path: Path, file: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            # Inside the one folder that torch.save and its relatives wrap everything in.
            inner = {name.partition("/")[2] for name in archive.namelist()}
            every = {*archive.namelist(), *inner}
            unpacked = _unpacked(archive)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        raise truncated(path, "the zip archive's directory is missing") from None
    packed = os.fstat(file.fileno()).st_size
    if unpacked > max(_MOST_UNPACKED, _MOST_TIMES * packed):
        what = f"unpacks to {unpacked:,} bytes, {unpacked // packed} times its own size"
        raise input_error(path, f"{what}, which no weights do; {_RESAVE}")
    if "archive_format" in every or "serialized_exported_program.json" in every:
        what = "a torch.export archive (.pt2), whose graph is fixed"
    elif "constants.pkl" in inner:
        what = "a TorchScript archive, whose graph is fixed"
    elif "data.pkl" in inner:
        return
    elif all(name.endswith(".npy") for name in archive.namelist()):
        raise input_error(path, f"a NumPy archive (.npz); {_WANTED}")
    else:
        names = listed(sorted(archive.namelist()), 3)
        raise input_error(path, f"a zip archive without weights of torch.save (it holds {names})")
    raise input_error(path, f"{what}; {_RESAVE} from the Python model")


def _unpacked(archive: zipfile.ZipFile) -> int:
    """Bytes of what is compressed, once unpacked; torch.save compresses nothing."""
    members = archive.infolist()
    return sum(m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED)


def _check_safetensors(path: Path, file: BinaryIO, size: int) -> None:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if 8 + length > size:
        # Any binary can have a "{" there; only a plausible length speaks for safetensors.
        if length > 100_000_000:
            raise input_error(path, _what_it_is(path, b"\x00"))
        raise truncated(path, f"the safetensors header needs {length} bytes, {size - 8} are there")
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for k, entry in header.items() if k != "__metadata__"]
        needed = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise truncated(path, "the safetensors header cannot be read") from None
    if needed > size:
        raise truncated(path, f"its header describes {needed} bytes, {size} are there")


def _what_it_is(path: Path, head: bytes) -> str:
    """One phrase, with a remedy, about a file that is in none of the formats."""
    for start, what in _KNOWN_STARTS:
        if head.startswith(start):
            return what
    if head[257:262] == b"ustar":
        return f"a tar archive (torch before 0.1.10, or a packed folder); unpack it, or {_RESAVE}"
    if head.startswith(b"\x80") and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"a pickle that torch.save did not write; {_RESAVE}"
    text = _as_text(head)
    if text is not None:
        return _what_text_it_is(path, text)
    # An ONNX file is a protobuf: field 1, the IR version, then field 2, a producer's name.
    if path.suffix.lower() == ".onnx" or (
        head[0] == 8 and head[1:2] < b"\x20" and head[2:3] in b"\x12:"
    ):
        return f"an ONNX file, probably; {_WANTED}"
    return f"not a checkpoint in a format that is known here; {_WANTED}"


def _what_text_it_is(path: Path, text: str) -> str:
    start = text.lstrip("\ufeff \t\r\n")
    if "weight_map" in text or path.name.endswith(".index.json"):
        return (
            "the index of a checkpoint in several files (shards), which only `measure --model "
            "hf:DIR` reads; load it in Python and save one file with "
            "torch.save(model.state_dict(), ...)"
        )
    if start.lower().startswith(("<!doctype html", "<html")):
        return "an HTML page, not a checkpoint; the download went wrong, get the file itself"
    if start.startswith("/annex/objects/"):
        return "a git-annex pointer, not the file itself; fetch it with `git annex get`"
    return f"a text file, not a checkpoint (it begins {start[:40]!r}); {_WANTED}"


def _as_text(head: bytes) -> str | None:
    """The bytes as UTF-8 text; None where they are binary."""
    if b"\x00" in head:
        return None
    # The last character may have been cut in two.
    for end in range(len(head), max(len(head) - 4, 0), -1):
        try:
            text = head[:end].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return text if all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text) else None
    return None
