"""Reading text files that anybody may have written: whole, soon, or not at all."""

from __future__ import annotations

from pathlib import Path

from bnaudit.regular_files import regular_file

_BINARY = ((b"PK\x03\x04", "a zip archive"), (b"\x80", "a pickle"), (b"\x1f\x8b", "a gzip archive"))
_OTHER_TEXT = (b"\xff\xfe", b"\xfe\xff")  # UTF-16 and UTF-32 with their byte order marks


class UnreadableError(Exception):
    """A file that is not the text it should be; the message is the reason, in a few words."""


def read_text(path: Path, *, largest: int) -> str:
    """The text of a file of at most `largest` bytes, UTF-8 with or without a byte order mark.

    Line ends are "\\n". Pipes and devices are refused. Raises `UnreadableError`.
    """
    try:
        content = _content(path, largest)
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    except ValueError as error:  # a null character in the name
        raise UnreadableError("not a file name") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(_what(content)) from error
    return text.replace("\r\n", "\n")


def _content(path: Path, largest: int) -> bytes:
    with regular_file(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise UnreadableError(f"larger than {largest // 2**20} MiB, which no such file is")
    return content


def _what(content: bytes) -> str:
    for start, kind in _BINARY:
        if content.startswith(start):
            return f"it is {kind}, such as a checkpoint, not text"
    if content.startswith(_OTHER_TEXT):
        return "it is UTF-16 text; save it as UTF-8"
    return "it is not UTF-8 text"
