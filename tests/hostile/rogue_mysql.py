"""Answers of a rogue MySQL: to a login, and to a statement."""

import socket
import struct
from collections.abc import Sequence
from itertools import count

from hostile.rogue import Treatment, dripping, endless, garbage, saying, silent

LONGLONG, NEWDECIMAL, DATETIME, VAR_STRING, BIT, UNKNOWN = 8, 246, 12, 253, 16, 99
"""Types of columns: mysql/include/field_types.h."""
UTF8 = 45
MIB = 2**20
ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07\nlevel=error event=forged\r\n\x9b2J\u202eend"
"""An error text for terminals and logs."""
SALT = b"12345678", b"abcdefghijkl"
_CAPABILITIES = 0x8 | 0x200 | 0x8000 | 0x80000 | 0x200000


def packet(number: int, payload: bytes) -> bytes:
    """Return a packet."""
    return struct.pack("<I", len(payload))[:3] + bytes([number % 256]) + payload


def packets(*payloads: bytes, first: int = 1) -> bytes:
    """Return packets with the numbers of an answer."""
    return b"".join(packet(number, payload) for number, payload in enumerate(payloads, first))


def text(value: bytes | None) -> bytes:
    """Return a value of a row."""
    if value is None:
        return b"\xfb"
    size = len(value)
    return (bytes([size]) if size < 251 else b"\xfd" + struct.pack("<I", size)[:3]) + value


def column(type_: int, name: bytes = b"c") -> bytes:
    """Return the description of a column."""
    charset = UTF8 if type_ == VAR_STRING else 63
    return (
        b"".join(map(text, (b"def", b"", b"", b"", name, b"")))
        + b"\x0c"
        + struct.pack("<HIBHBH", charset, 255, type_, 0, 0, 0)
    )


EOF = b"\xfe\0\0\2\0"
OK = b"\0\0\0\2\0\0\0"


def head(*types: int) -> list[bytes]:
    """Return the payloads before the first row."""
    return [text_length(len(types)), *(column(type_, b"c%d" % number) for number, type_ in enumerate(types)), EOF]


def text_length(number: int) -> bytes:
    """Return a number as lengths are written."""
    return bytes([number]) if number < 251 else b"\xfc" + struct.pack("<H", number)


def result(types: Sequence[int], *rows: Sequence[bytes | None]) -> bytes:
    """Return a complete answer with rows."""
    return packets(*head(*types), *(b"".join(map(text, row)) for row in rows), EOF)


def error(code: int, message: str, state: bytes = b"HY000") -> bytes:
    """Return the payload of an error."""
    return b"\xff" + struct.pack("<H", code) + b"#" + state + message.encode()


def greeting(plugin: bytes = b"mysql_native_password", version: bytes = b"8.4.0") -> bytes:
    """Return the payload with which a server begins."""
    start = b"\x0a" + version + b"\0" + struct.pack("<I", 7) + SALT[0] + b"\0"
    middle = struct.pack("<HBHHB", _CAPABILITIES & 0xFFFF, UTF8, 2, _CAPABILITIES >> 16, 21) + bytes(10)
    return start + middle + SALT[1] + b"\0" + plugin + b"\0"


def saying_then_silent(data: bytes) -> Treatment:
    """Say something, and nothing more."""

    def treat(client: socket.socket) -> None:
        client.sendall(data)
        silent(client)

    return treat


def endless_rows(row: bytes, *, types: Sequence[int] = (VAR_STRING,)) -> Treatment:
    """Answer with rows for ever."""
    start = head(*types)
    first = len(start) + 1
    return endless(packets(*start), packets(*[row] * 256, first=first))


def row_a_second(client: socket.socket) -> None:
    """Answer with a row a second for ever."""
    start = head(LONGLONG)
    client.settimeout(1)
    client.sendall(packets(*start))
    for number in count(len(start) + 1):
        client.sendall(packet(number, text(b"1")))
        try:
            if not client.recv(1):
                return
        except TimeoutError:
            continue


TO_LOGINS: dict[str, Treatment] = {
    "silent": silent,
    "closed": saying(),
    "garbage": saying(bytes(range(256)) * 8),
    "error": saying(packet(0, error(1040, "Too many connections"))),
    "escapes": saying(packet(0, error(1130, ESCAPES))),
    "cut": saying(packet(0, greeting())[:30]),
    "empty": saying(packet(0, b"")),
    "no version": saying(packet(0, greeting(version=b"x"))),
    "no text": saying(packet(0, greeting(plugin=b"\xff\xfe"))),
    "huge": endless(b"\xff\xff\xff\0", b"x" * MIB),
    "drip": dripping(packet(0, greeting())),
    "drip after": saying_then_silent(packet(0, greeting())),
    "unknown plugin": saying(packet(0, greeting()), packet(2, b"\xfeunknown\0" + b"".join(SALT) + b"\0")),
    "switches": saying(packet(0, greeting()), packet(2, b"\xfemysql_native_password\0x"), packet(4, b"\xfe")),
    "wrong number": saying(packet(0, greeting()), packet(77, OK)),
    "garbage after": saying(packet(0, greeting()), *[bytes(range(256))] * 3),
    "garbage at set-up": saying(packet(0, greeting()), packet(2, OK), *[bytes(range(256))] * 3),
}
"""Treatments of connections that never are logged in."""

TO_STATEMENTS: dict[str, Treatment] = {
    "silent": silent,
    "closed": saying(),
    "garbage": garbage,
    "endless rows": endless_rows(text(b"x" * 20)),
    "endless nothing": endless_rows(text(None) * 200, types=[LONGLONG] * 200),
    "endless decimals": endless_rows(text(b"1.5") * 5, types=[NEWDECIMAL] * 5),
    "endless columns": endless(packets(text_length(65_535)), packets(*[column(LONGLONG)] * 256, first=2)),
    "huge packets": endless(b"", b"\xff\xff\xff\1" + b"x" * (2**24 - 1)),
    "huge value": saying(result([VAR_STRING], [b"\xf0\x9f\x98\x80" + b"x" * (15 * MIB)])),
    "huge error": saying(packet(1, error(1105, "\U0001f600" + "x" * 8 * MIB))),
    "escapes": saying(packet(1, error(1105, ESCAPES))),
    "load": saying(packet(1, b"\xfb/etc/passwd")),
    "no utf-8": saying(result([VAR_STRING] * 2, [b"\xff\xfe", b"1"])),
    "long number": saying(result([LONGLONG] * 2, [b"9" * 5000, b"9" * 5000])),
    "long decimal": saying(result([NEWDECIMAL] * 2, [b"9" * 5000, b"9" * 5000])),
    "no number": saying(result([LONGLONG, NEWDECIMAL], [b"abc", b"xyz"])),
    "no time": saying(result([DATETIME] * 2, [b"\xff" * 30, b"0000-00-00"])),
    "bits": saying(result([BIT] * 2, [b"\xff" * 500, b"\xff" * 500])),
    "unknown type": saying(result([UNKNOWN] * 2, [b"\xff", b"\x80"])),
    "numbers beyond all": saying(result([LONGLONG] * 4, [b"1" + b"0" * 40] * 4)),
    "negative": saying(result([LONGLONG] * 4, [b"-5"] * 4)),
    "nulls": saying(result([LONGLONG] * 4, [None] * 4)),
    "texts": saying(result([VAR_STRING] * 4, [b"a", b"b", b"c", b"d"])),
    "one column": saying(result([LONGLONG], [b"1"])),
    "many columns": saying(result([LONGLONG] * 40, [b"1"] * 40)),
    "no rows": saying(result([LONGLONG] * 2)),
    "many rows": saying(result([LONGLONG] * 2, *[[b"1", b"1"]] * 500)),
    "short rows": saying(result([LONGLONG] * 4, [b"1"], [b"1", b"2"])),
    "long rows": saying(result([LONGLONG] * 2, [b"-1"] * 9)),
    "cut row": saying(packets(*head(LONGLONG, LONGLONG), b"\xfc\xff")),
    "no columns": saying(packets(b"\0\0")),
    "success": saying(packet(1, OK)),
    "nothing": saying(packet(1, b"")),
    "end at once": saying(packet(1, EOF)),
    "cut": saying(packet(1, b"x" * 1000)[:500]),
    "cut and silent": saying_then_silent(packet(1, b"x" * 1000)[:500]),
    "wrong number": saying(packet(7, OK)),
    "row a second": row_a_second,
    "drip": dripping(packet(1, b"x" * 1000)),
    "refusal of rows": saying(*[packet(1, error(1690, "BIGINT value is out of range", b"22003"))] * 3),
    "refusal of names": saying(*[packet(1, error(1054, "Unknown column", b"42S22"))] * 3),
    "refusal": saying(*[packet(1, error(1142, "command denied", b"42000"))] * 3),
}
"""Treatments of statements."""

SLOW = {"silent", "garbage", "drip", "drip after", "cut and silent", "row a second"}
"""Treatments that only a time-out ends."""
LARGE = {name for name in TO_STATEMENTS if name.startswith(("endless", "huge"))} | {"huge"}
"""Treatments whose answers must not be read to their end."""
