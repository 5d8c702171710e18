"""What the header of a JPEG file says, as far as it decides who can decode it."""

from __future__ import annotations

_START = b"\xff\xd8"
_END = b"\xff\xd9"
_SCAN = 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # others of these are tables, and reserved
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def is_plain_jpeg(encoded: bytes) -> bool:
    """Whether a file is a whole JPEG, grey or in three colours, 8 bits each.

    Decoders agree on those. CMYK, 12 bits and files that were cut short are left to Pillow, which
    converts or refuses them as it does elsewhere.
    """
    if not encoded.startswith(_START) or not encoded.rstrip(b"\0").endswith(_END):
        return False
    place = 2
    while place + 9 < len(encoded):
        if encoded[place] != 0xFF:
            return False
        marker = encoded[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _ALONE:
            place += 2
        elif marker in _FRAMES:
            return encoded[place + 4] == 8 and encoded[place + 9] in (1, 3)
        elif marker == _SCAN:
            return False
        else:
            place += 2 + int.from_bytes(encoded[place + 2 : place + 4])
    return False
