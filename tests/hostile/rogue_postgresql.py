"""Answers of a rogue PostgreSQL: to a login, and to a statement."""

import socket
import struct
from collections.abc import Sequence

from hostile.rogue import Treatment, dripping, endless, garbage, saying, silent
from hostile.rogue_mysql import ESCAPES, MIB, saying_then_silent

INT8, TEXT, NUMERIC, TIMESTAMP, FLOAT8, JSON, BYTEA, DATE, UNKNOWN = 20, 25, 1700, 1114, 701, 114, 17, 1082, 99_999
"""OIDs of types: pg_type.dat."""


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return a message of the server."""
    return kind + struct.pack("!I", len(body) + 4) + body


def description(*types: int) -> bytes:
    """Return the description of the rows."""
    fields = (b"c%d\0" % number + struct.pack("!IhIhih", 0, 0, oid, -1, -1, 0) for number, oid in enumerate(types))
    return message(b"T", struct.pack("!h", len(types)) + b"".join(fields))


def row(*values: bytes | None) -> bytes:
    """Return a row."""
    cells = (b"\xff\xff\xff\xff" if value is None else struct.pack("!i", len(value)) + value for value in values)
    return message(b"D", struct.pack("!h", len(values)) + b"".join(cells))


HUGE = "\U0001f600" + "x" * 15 * MIB
"""A text close to the limit of an answer; Python needs four bytes for each character."""
PARSED = message(b"1") + message(b"2")
"""ParseComplete and BindComplete."""
DONE = message(b"C", b"SELECT 1\0") + message(b"Z", b"I")


def error(state: str, text: str, severity: str = "ERROR") -> bytes:
    """Return an error."""
    fields = {b"S": severity, b"V": severity, b"C": state, b"M": text}
    return message(b"E", b"".join(kind + value.encode() + b"\0" for kind, value in fields.items()) + b"\0")


def answering(*parts: bytes) -> Treatment:
    """Answer a statement, in the protocol in which it comes; later ones in the same way."""

    def treat(client: socket.socket) -> None:
        while True:
            client.sendall(b"".join(parts))
            if not client.recv(65_536):
                return

    return treat


def once(*parts: bytes) -> Treatment:
    """Answer one statement, and close."""
    return saying(b"".join(parts))


def result(types: Sequence[int], *rows: Sequence[bytes | None]) -> Treatment:
    """Answer with complete rows, to statements with values."""
    return answering(PARSED, description(*types), *(row(*values) for values in rows), DONE)


def row_a_second(client: socket.socket) -> None:
    """Answer with a row a second for ever."""
    client.settimeout(1)
    client.sendall(PARSED + description(INT8))
    while True:
        client.sendall(row(b"1"))
        try:
            if not client.recv(1):
                return
        except TimeoutError:
            continue


AUTHENTICATED = message(b"R", struct.pack("!I", 0))
CLEARTEXT = message(b"R", struct.pack("!I", 3))


def parameters(**named: str) -> bytes:
    """Return ParameterStatus messages."""
    return b"".join(message(b"S", f"{name}\0{value}\0".encode()) for name, value in named.items())


READY = message(b"K", struct.pack("!II", 7, 7)) + message(b"Z", b"I")

TO_LOGINS: dict[str, Treatment] = {
    "silent": silent,
    "closed": saying(),
    "garbage": saying(b"", bytes(range(256)) * 8),
    "error": saying(b"", error("53300", "sorry, too many clients already", "FATAL")),
    "escapes": saying(b"", error("28000", ESCAPES, "FATAL")),
    "huge error": saying(b"", error("28000", "x" * 8 * MIB, "FATAL")),
    "cut": saying(b"", AUTHENTICATED[:6]),
    "drip": dripping(AUTHENTICATED * 100),
    "unknown method": saying(b"", message(b"R", struct.pack("!I", 77))),
    "endless parameters": endless(AUTHENTICATED, parameters(**{f"a{number}": "x" * 5000 for number in range(50)})),
    "notices": saying(b"", AUTHENTICATED + message(b"N", b"SWARNING\0C01000\0M" + ESCAPES.encode() + b"\0\0")),
    "no version": saying(b"", AUTHENTICATED + READY, *[message(b"Z", b"I")] * 5),
    "no encoding": saying(
        b"", AUTHENTICATED + parameters(client_encoding="X", server_version="x") + READY, *[DONE] * 5
    ),
    "garbage after": saying(b"", AUTHENTICATED + parameters(server_version="15.0") + READY, *[bytes(range(256))] * 5),
}
"""Treatments of connections that never are set up."""

TO_STATEMENTS: dict[str, Treatment] = {
    "silent": silent,
    "closed": saying(),
    "garbage": garbage,
    "endless rows": endless(PARSED + description(TEXT), row(b"x" * 20)),
    "endless nulls": endless(PARSED + description(INT8), row(None)),
    "endless nothing": endless(PARSED + description(*[INT8] * 200), row(*[None] * 200)),
    "endless decimals": endless(PARSED + description(*[NUMERIC] * 5), row(*[b"1.5"] * 5)),
    "endless notices": endless(PARSED, message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 1000 + b"\0\0")),
    "endless notifications": endless(PARSED, message(b"A", b"\0\0\0\7a\0" + b"x" * 100 + b"\0")),
    "endless errors": endless(PARSED, error("XX000", "x")),
    "endless results": endless(PARSED, description(INT8)),
    "endless ends": endless(PARSED, message(b"C", b"SELECT 1\0")),
    "huge packets": endless(PARSED + description(TEXT), b"D\x3f\xff\xff\xff\0\1\x3f\xff\xff\xf5" + b"x" * MIB),
    "huge value": once(PARSED, description(TEXT), row(b"\xf0\x9f\x98\x80" + b"x" * (15 * MIB)), DONE),
    "huge error": once(PARSED, error("XX000", HUGE), message(b"Z", b"I")),
    "huge error at the end": once(PARSED, error("XX000", HUGE, "FATAL")),
    "huge state": once(PARSED, error(HUGE, "no"), message(b"Z", b"I")),
    "huge notice": once(PARSED, message(b"N", error("XX000", HUGE)[5:]), error("XX000", "no"), message(b"Z", b"I")),
    "escapes": answering(PARSED, error("XX000", ESCAPES), message(b"Z", b"I")),
    "copy": answering(PARSED, message(b"G", b"\0\0\1\0\0"), message(b"Z", b"I")),
    "copy out": answering(PARSED, message(b"H", b"\0\0\1\0\0"), message(b"d", b"x"), message(b"Z", b"I")),
    "no utf-8": result([TEXT] * 2, [b"\xff\xfe", b"1"]),
    "long number": result([INT8] * 2, [b"9" * 5000] * 2),
    "long decimal": result([NUMERIC] * 2, [b"9" * 5000] * 2),
    "no number": result([INT8, NUMERIC], [b"abc", b"xyz"]),
    "no time": result([TIMESTAMP, DATE], [b"\xff" * 30, b"infinity"]),
    "no json": result([JSON] * 2, [b"[" * 100_000, b"{"]),
    "infinite": result([FLOAT8, NUMERIC], [b"NaN", b"Infinity"]),
    "bytes": result([BYTEA] * 2, [b"\\xzz", b"\\x00"]),
    "unknown type": result([UNKNOWN] * 2, [b"\xff", b"\x80"]),
    "numbers beyond all": result([INT8] * 4, [b"1" + b"0" * 40] * 4),
    "negative": result([INT8] * 4, [b"-5"] * 4),
    "nulls": result([INT8] * 4, [None] * 4),
    "texts": result([TEXT] * 4, [b"a", b"b", b"c", b"d"]),
    "one column": result([INT8], [b"1"]),
    "many columns": result([INT8] * 40, [b"1"] * 40),
    "no rows": result([INT8] * 2),
    "many rows": result([INT8] * 2, *[[b"1", b"1"]] * 500),
    "short rows": result([INT8] * 4, [b"1"], [b"1", b"2"]),
    "long rows": result([INT8] * 2, [b"1"] * 9),
    "cut row": answering(PARSED, description(INT8), message(b"D", b"\0\1\0\0\xff\xff"), DONE),
    "no columns": result([], [], []),
    "success": answering(PARSED, DONE),
    "nothing": answering(PARSED, message(b"I"), message(b"Z", b"I")),
    "end at once": answering(message(b"Z", b"I")),
    "cut": saying(PARSED + row(b"x" * 1000)[:500]),
    "cut and silent": saying_then_silent(PARSED + description(TEXT) + row(b"x" * 1000)[:500]),
    "row a second": row_a_second,
    "drip": dripping(PARSED + description(TEXT) + row(b"x" * 1000)),
    "refusal of rows": answering(PARSED, error("22003", "bigint out of range"), message(b"Z", b"I")),
    "refusal of names": answering(PARSED, error("42703", "column does not exist"), message(b"Z", b"I")),
    "refusal": answering(PARSED, error("42501", "permission denied"), message(b"Z", b"I")),
}
"""Treatments of statements."""

SLOW = {"silent", "garbage", "drip", "cut and silent", "row a second"}
"""Treatments that only a time-out ends."""
LARGE = {name for name in TO_STATEMENTS if name.startswith(("endless", "huge"))} | {"endless parameters"}
"""Treatments whose answers must not be read to their end."""
