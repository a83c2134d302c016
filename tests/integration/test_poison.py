"""Harmful rows of a source: they harm no other row, job or client, and are logged."""

import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from harness import Shipper, wait_for
from servers import SCHEMAS

from shipper.demo.carbon_cache import CarbonCache

JOBS = """
[limits]
series = 40

[job.poison]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
measure = { count = "count", ratio = "sum:ratio" }
name = "poison.{action}.{measure}"

[job.calm]
table = "audit_trail"
id = "id"
time = "created_at"
where = { outcome = "ok" }
by = ["outcome"]
name = "calm.{outcome}.{measure}"

[job.flood]
table = "audit_trail"
id = "id"
time = "created_at"
where = { outcome = "flood" }
by = ["duration_ms"]
name = "flood.{duration_ms}.{measure}"
"""
ROUNDS = 3
GROUPS: list[str | bytes | None] = [
    *("a\nb", "a\r\nb", "a\0b", "a\tb", "a\u00a0b", "a\u2028b", "a\x1cb", "x" * 300, "\u4e16" * 300),
    *(
        "..",
        "/",
        "../../etc",
        "a/b",
        "a..b",
        ".a",
        "a.",
        ";",
        "a;b=c",
        "*",
        "",
        " ",
        "nan",
        "x 1 nan\nother.client 7 1",
    ),
    *(b"\xff", b"\xf0\x9f", None, "login"),
]
RATIOS: list[object] = [5.5, float("inf"), -1, float("-inf"), 1e305, None, "1e400"]
REFUSED = 4
FLOOD = 60
ROWS = len(GROUPS) + len(RATIOS) + FLOOD
INSERT = (
    "INSERT INTO audit_trail (created_at, action, outcome, duration_ms, ratio) VALUES (?, CAST(? AS TEXT), ?, ?, ?)"
)


@pytest.fixture
def app(tmp_path: Path, carbon_cache: CarbonCache) -> Iterator[Shipper]:
    """Give the program with three jobs on one empty table."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute(SCHEMAS["sqlite"])
        connection.execute("ALTER TABLE audit_trail ADD ratio")
    program = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=carbon_cache.port, jobs=JOBS)
    text = program.config.read_text()
    program.config.write_text(text.replace('timeout = "5s"', 'timeout = "1m"'))  # a slow machine is no failure
    yield program
    program.stop()


def write(folder: Path) -> None:
    """Commit one row of each harmful kind, and good ones before, between and after them."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    good = (now, "good", "ok", None, 0.5)
    poison: list[tuple[object, ...]] = [(now, group, "bad", None, 1) for group in GROUPS]
    poison += [(now, "login", "bad", None, ratio) for ratio in RATIOS]
    poison += [(now, "login", "flood", number, None) for number in range(FLOOD)]
    with closing(sqlite3.connect(folder / "app.db")) as connection, connection:
        connection.executemany(INSERT, [row for bad in poison for row in (good, bad)])


def logged(folder: Path) -> str:
    """Return Carbon's log."""
    return "\n".join(file.read_text(errors="replace") for file in (folder / "carbon/log").rglob("*.log"))


def sums(carbon_cache: CarbonCache, prefix: str) -> dict[str, float]:
    """Add up the series below a prefix as Whisper holds them."""
    series = carbon_cache.sums().items()
    return {path.removeprefix(prefix): sum(slots.values()) for path, slots in series if path.startswith(prefix)}


def test_poison(app: Shipper, carbon_cache: CarbonCache) -> None:
    """All good rows of all jobs and all lines of another client arrive; Carbon sees no invalid line; all is logged.

    Mutants: unchanged values in paths; without Fit, where the sum of the group is lost; OTHER for no group.
    """
    app.start()
    minute = int(time.time()) // 60 * 60
    with socket.create_connection(("127.0.0.1", carbon_cache.port)) as client:
        for number in range(1, ROUNDS + 1):
            write(app.folder)
            client.sendall(f"other.client.{number} {number} {minute}\n".encode())
            wait_for(partial(has_rows, carbon_cache, "audit.poison.", 2 * number * ROWS), f"round {number}")
            client.sendall(f"other.client.{number}_ {number} {minute}\n".encode())
        wait_for(partial(has_rows, carbon_cache, "audit.calm.", ROUNDS * ROWS), "the other job")
        wait_for(partial(has_rows, carbon_cache, "audit.flood.", ROUNDS * FLOOD), "the flood")
        wait_for(lambda: len(sums(carbon_cache, "other.client.")) == 2 * ROUNDS, "the other client")

        # each harmful value has a separate series, and no file lies elsewhere
        poison, flood = sums(carbon_cache, "audit.poison."), sums(carbon_cache, "audit.flood.")
        assert len([path for path in poison if path.endswith(".count")]) == len(GROUPS) + 1
        assert poison["good.ratio"] == ROUNDS * ROWS / 2
        assert poison["login.ratio"] == ROUNDS * 5.5
        assert len(flood) == 41
        assert flood["_other.count"] == ROUNDS * (FLOOD - 40)
        assert {path.partition(".")[0] for path in carbon_cache.sums()} == {"audit", "other"}
        assert sums(carbon_cache, "other.client.") == {
            f"{number}{end}": number for number in range(1, ROUNDS + 1) for end in ("", "_")
        }

        # Carbon logs nothing about our lines; about an invalid line it does
        assert "nvalid" not in logged(app.folder)
        client.sendall(b"a b c d\n")
        wait_for(lambda: "nvalid" in logged(app.folder), "an invalid line in Carbon's log")

    text = app.text()
    assert re.search(r"event=value\.rejected job=poison column=ratio id=\d+ value=-?inf rows=\d+", text)
    assert sum(map(int, re.findall(r"event=value\.rejected .* rows=(\d+)", text))) == ROUNDS * REFUSED
    assert re.search(r"event=series\.limited job=flood rows=\d+ limit=40 value='\d+'", text)
    assert re.search(r"event=series\.sanitized job=poison .*value=", text)
    assert {event for event in app.events() if event.endswith((".failed", ".stopped"))} == set()
    assert all(line.startswith("timestamp=") for line in text.splitlines()), "each line is one event"


def has_rows(carbon_cache: CarbonCache, prefix: str, rows: int) -> bool:
    """Whether the counts below a prefix add up to a number of rows."""
    series = sums(carbon_cache, prefix).items()
    return sum(value for path, value in series if path.endswith(".count")) == rows
