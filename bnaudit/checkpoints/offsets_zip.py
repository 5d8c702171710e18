"""Where tensors and checksums lie in the zip files that torch.save writes since 1.6."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from bnaudit.checkpoints.offsets_pickle import PickledFile
from bnaudit.checkpoints.places import CannotPatch, Run
from bnaudit.checkpoints.stub_pickle import read_stubs

_CHUNK = 1 << 20
# Bits of a member's flags: encrypted; its checksum follows its data.
_ENCRYPTED, _DESCRIPTOR = 0x1, 0x8
_LOCAL, _CENTRAL = 30, 46


def read_zip(file: BinaryIO) -> PickledFile:
    """The pickle of the file, and where its records lie; compressed ones have no start.

    Raises `CannotPatch` for an archive that cannot be read so.
    """
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        folder = _folder(archive)
        pickled = read_stubs(io.BytesIO(_content(file, archive, f"{folder}/data.pkl")))
        order = b"little"
        if f"{folder}/byteorder" in members:
            order = _content(file, archive, f"{folder}/byteorder")
        starts: dict[str, int | None] = {}
        sizes: dict[str, int] = {}
        for record in {storage.key for storage in pickled.storages}:
            info = members.get(f"{folder}/data/{record}")
            if info is not None:
                stored = info.compress_type == zipfile.ZIP_STORED
                starts[record] = start = _data_start(file, info) if stored else None
                if start is not None and start + info.file_size > archive.start_dir:
                    raise CannotPatch(f"the archive's member {info.filename} is cut off")
                sizes[record] = info.file_size
    return PickledFile(pickled, starts, sizes, big_endian=order == b"big")


def read_record(file: BinaryIO, record: str, start: int, end: int) -> bytes:
    """Bytes of a record that may be compressed."""
    with zipfile.ZipFile(file) as archive:
        return content_of(archive, member_of(archive, record))[start:end]


def content_of(archive: zipfile.ZipFile, member: str) -> bytes:
    """A member's content, unpacked. Raises `CannotPatch` where it is damaged."""
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise CannotPatch(f"the archive's member {member} cannot be unpacked ({error})") from None


def member_of(archive: zipfile.ZipFile, record: str) -> str:
    """The archive's name of a storage's record."""
    return f"{_folder(archive)}/data/{record}"


def checksum_runs(file: BinaryIO, changes: Mapping[str, Sequence[Run]]) -> list[Run]:
    """What changes of the archive's CRC-32 fields with the records in `changes`: runs of the file.

    A field is in the central directory and, each where the writer filled it in, in the header ahead
    of the data and in the descriptor behind them. torch can be told to write no true checksums
    (`set_crc32_options(False)`); those stay as they are. Raises `CannotPatch` for a checksum that
    has no place known here.
    """
    runs = []
    with zipfile.ZipFile(file) as archive:
        central = _central_offsets(file, archive)
        for record, changed in changes.items():
            info = archive.getinfo(member_of(archive, record))
            start = _data_start(file, info)
            if _crc(file, start, info.file_size, ()) != info.CRC:
                continue
            old = struct.pack("<I", info.CRC)
            new = struct.pack("<I", _crc(file, start, info.file_size, changed))
            runs.append(Run(central[info.header_offset] + 16, new))
            if _bytes_at(file, info.header_offset + 14, 4) == old:
                runs.append(Run(info.header_offset + 14, new))
            elif not info.flag_bits & _DESCRIPTOR:
                raise CannotPatch(f"the archive's checksums of {info.filename} contradict")
            if info.flag_bits & _DESCRIPTOR:
                runs.append(Run(_descriptor(file, start + info.file_size, old), new))
    return runs


def _folder(archive: zipfile.ZipFile) -> str:
    """The one folder that torch.save wraps everything in."""
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise CannotPatch("the archive holds several members of one name")
    found = [name for name in names if name.partition("/")[2] == "data.pkl"]
    if len(found) != 1:
        raise CannotPatch("the archive is not laid out as torch.save does")
    return found[0].partition("/")[0]


def _content(file: BinaryIO, archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's data; its checksum is not compared, since torch can be told to write none."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        return archive.read(info)
    return _bytes_at(file, _data_start(file, info), info.file_size)


def _data_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """The byte of the file at which a member's data begin."""
    head = _bytes_at(file, info.header_offset, _LOCAL)
    if head[:4] != b"PK\x03\x04" or info.flag_bits & _ENCRYPTED:
        raise CannotPatch(f"the archive's member {info.filename} is encrypted or damaged")
    name, extra = struct.unpack_from("<2H", head, 26)
    return int(info.header_offset + _LOCAL + name + extra)


def _central_offsets(file: BinaryIO, archive: zipfile.ZipFile) -> dict[int, int]:
    """Where each member's entry in the central directory begins, by the member's own offset."""
    offsets = {}
    at = archive.start_dir
    for info in archive.infolist():  # in the directory's order
        head = _bytes_at(file, at, _CENTRAL)
        if head[:4] != b"PK\x01\x02" or struct.unpack_from("<I", head, 16)[0] != info.CRC:
            raise CannotPatch("the archive's directory is not where it should be")
        offsets[info.header_offset] = at
        at += _CENTRAL + sum(struct.unpack_from("<3H", head, 28))
    return offsets


def _descriptor(file: BinaryIO, end: int, old: bytes) -> int:
    """The byte of the file at which the checksum behind a member's data lies."""
    tail = _bytes_at(file, end, 8)
    # Its signature is optional.
    if tail[:4] == b"PK\x07\x08" and tail[4:] == old:
        return end + 4
    if tail[:4] == old:
        return end
    raise CannotPatch("the archive's checksum behind the data is not where it should be")


def _crc(file: BinaryIO, start: int, size: int, changed: Sequence[Run]) -> int:
    """The CRC-32 of `size` bytes of the file from `start`, with `changed` (from there) put in."""
    crc = 0
    for at in range(0, size, _CHUNK):
        chunk = bytearray(_bytes_at(file, start + at, min(_CHUNK, size - at)))
        put(chunk, at, changed)
        crc = zlib.crc32(chunk, crc)
    return crc


def put(chunk: bytearray, at: int, runs: Sequence[Run]) -> None:
    """Write into `chunk`, which begins at byte `at`, what falls into it of `runs`."""
    end = at + len(chunk)
    for run in runs:
        low, high = max(run.start, at), min(run.start + len(run.data), end)
        if low < high:
            chunk[low - at : high - at] = run.data[low - run.start : high - run.start]


def _bytes_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) != size:
        raise CannotPatch("the archive ends too early")
    return data
