"""Connections of PyMySQL, before they connect, and what they read."""

import io
import ssl
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pymysql.connections import MySQLResult

from shipper.source.dialects.mysql_driver import Error, MeteredConnection, _Result
from shipper.source.limits import Meter


@pytest.mark.parametrize(
    ("options", "verify_mode", "has_authorities"),
    [({}, ssl.CERT_NONE, False), ({"ssl": ssl.create_default_context()}, ssl.CERT_REQUIRED, True)],
)
def test_authorities(options: dict[str, Any], verify_mode: ssl.VerifyMode, *, has_authorities: bool) -> None:
    """Without TLS options the server is not verified, and no authorities are loaded; a given context stays.

    Mutants: the context of PyMySQL; this one in place of a given one.
    """
    context = vars(MeteredConnection(Meter(1), defer_connect=True, **options))["ctx"]

    assert context.verify_mode == verify_mode
    assert context.check_hostname == (verify_mode == ssl.CERT_REQUIRED)
    assert bool(context.cert_store_stats()["x509"]) == has_authorities


def packets(rows: list[list[bytes | None]], first: int) -> bytes:
    """Return rows and their end as a server sends them, the first packet with a number."""
    bodies = [b"".join(b"\xfb" if one is None else length(len(one)) + one for one in row) for row in rows]
    numbered = enumerate([*bodies, b"\xfe\x00\x00\x02\x00"], first)
    return b"".join(len(body).to_bytes(3, "little") + bytes([number % 256]) + body for number, body in numbered)


def length(size: int) -> bytes:
    """Return a length as MySQL writes it."""
    return bytes([size]) if size < 251 else b"\xfc" + size.to_bytes(2, "little")


def answer(kind: type[MySQLResult], stream: bytes, *, buffer: int, first: int) -> tuple[object, ...]:
    """Return what a result makes of a stream: rows, or the error; and what the connection knows then."""
    connection = MeteredConnection(Meter(60), defer_connect=True)
    reader = io.BufferedReader(io.BytesIO(stream), buffer)  # never slow
    vars(connection).update(_reader=reader, _next_seq_id=first, _columns=2, _current_timeout=None, _sock=None)
    result: Any = kind(connection)
    result.converters = [("utf8", None), ("utf8", int)]
    try:
        result._read_rowdata_packet()
    except (Error, AssertionError, IndexError, ValueError, struct.error) as error:
        return type(error), str(error)
    return result.rows, result.affected_rows, connection._next_seq_id, connection._packets, connection._bytes


VALUES = st.one_of(st.none(), st.text(max_size=9).map(str.encode), st.integers(240, 300).map(lambda size: b"x" * size))
ROWS = st.lists(st.tuples(VALUES, st.one_of(st.none(), st.integers(0, 2000).map(lambda one: b"%d" % one))).map(list))


DAMAGE = st.tuples(st.integers(0, 1000), st.integers(0, 255))
"""A byte, and its value."""


@given(ROWS, st.integers(8, 600), st.integers(0, 255), st.none() | DAMAGE)
@example([[b"a", b"1"], [b"b", b"2"]], 600, 0, (3, 7))
def test_rows(rows: list[list[bytes | None]], buffer: int, first: int, damage: tuple[int, int] | None) -> None:
    """Rows are those that PyMySQL reads, wherever the buffer ends; also of a broken stream, as errors.

    Mutants: a value of 251 bytes as NULL; no end of a packet; a number that is not counted; no look at the numbers.
    """
    stream = bytearray(packets(rows, first))
    if damage is not None:
        stream[damage[0] % len(stream)] = damage[1]
    fast, slow = (answer(kind, bytes(stream), buffer=buffer, first=first) for kind in (_Result, MySQLResult))

    assert fast == slow
