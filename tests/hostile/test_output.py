"""Texts from outside, as commands show them on a terminal: it obeys none of them, and no line is forged."""

import os
import pty
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from harness import EVENTS, PATIENCE_SECONDS, Shipper, wait_for
from hostile.rogue import Rogue
from hostile.rogue_graphite import Graphite, RogueCarbon
from hostile.rogue_mysql import ESCAPES

from shipper.cli.output import Styled, joined, styled, table

VALUE = "login\x1b]0;title\x07\x1b[32m\n✓ forged: all is well\r\u202e\x9b2J\x00"
COLUMN, TABLE = "outco\x1b[32m\n✓\x9bme", "trai\x1b[32m\n✓\x9bls"
"""A value and names that were chosen by an attacker."""
COLOR = re.compile(r"\x1b\[(0|3[123])m")
OTHERS = """
[job.other]
table = "audit_trail"
id = "id"
by = ["outcome"]
name = "other.{outcome}.{measure}"

[job.trails]
table = "trails"
id = "id"
name = "trails.{measure}"
"""


def test_parts() -> None:
    """Only colors of ours reach a terminal; cells of tables are one line each. Mutant: keep any sequence of a color."""
    assert joined(["\x1b[31ma\nb\t", styled("c\x1b", "green"), "\udcff\u202e"]) == (
        "\\x1b[31ma\nb\t\x1b[32mc\\x1b\x1b[0m\\udcff\\u202e"
    )
    assert table(["A"], [["b\nc\x1b"], [Styled("d")]]) == "A\nb\\nc\\x1b\nd"


@pytest.mark.parametrize("name", ["psycopg.transaction", "sqlalchemy.pool"])
def test_libraries(name: str) -> None:
    """A command without a log shows nothing of drivers: their messages have a server's words. Mutant: no handler."""
    modules = "shipper.runtime.postgresql, shipper.source.connections.engine"
    script = f"import logging, sys, {modules}; logging.getLogger(sys.argv[1]).warning('\\x1b[31m')"
    ended = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, check=True)

    assert ended.stderr == ""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Shipper]:
    """Give a table with hostile values, and hostile names of columns, types and tables beside it."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute(
            f'CREATE TABLE audit_trail (id INTEGER PRIMARY KEY, created_at TEXT, action TEXT, "{COLUMN}" TEXT)'
        )
        connection.execute(f'CREATE TABLE "{TABLE}" (id INTEGER PRIMARY KEY)')
        rows = [(VALUE,), (ESCAPES,)]
        connection.executemany("INSERT INTO audit_trail (created_at, action) VALUES (datetime('now'), ?)", rows)
    graphite = Graphite()
    with closing(Rogue(graphite.web)) as web, closing(RogueCarbon(graphite.carbon)) as carbon:
        program = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=carbon.port, jobs=EVENTS + OTHERS)
        text = program.config.read_text()
        program.config.write_text(text.replace("[graphite]", f'[graphite]\nrender_url = "http://127.0.0.1:{web.port}"'))
        yield program


def on_terminal(program: Shipper, command: str) -> str:
    """Run a command on a terminal; return what it shows."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "shipper.cli", *command.split(), "--config", str(program.config)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65_536):
                text += part
        except OSError:  # the other end is closed
            pass
        assert process.wait(PATIENCE_SECONDS) in {0, 1, 3, 4}
    os.close(ours)
    return text.decode().replace("\r\n", "\n")


def check(text: str) -> None:
    """Check that a terminal gets letters, lines and colors of ours."""
    shown = COLOR.sub("", text)
    assert [line for line in shown.split("\n") if not line.replace("\t", " ").isprintable()] == []
    assert not re.search(r"^ *✓ ?(forged|\\|$)", shown, re.MULTILINE)
    assert "Traceback" not in shown


def test_terminal(program: Shipper) -> None:
    """No command lets a name, a value or an error move the cursor, set colors or a title, or begin a line.

    Mutant: show a finding, or a similar name, as it is.
    """
    shown = {}
    before = ("check", "preview events", "once events", "once", "status", "history events", "reconcile", "admin grants")
    for command in (*before, "preview events", "reset --emptied --yes events", "admin seek --to end --yes events"):
        check(text := on_terminal(program, command))
        shown[command] = text
    # some of them show such texts
    assert "forged" in shown["once events"]
    for name in ("outco", "trai"):
        assert rf'Did you mean "{name}\x1b[32m\n✓\x9b' in shown["check"]


def test_page_and_log(program: Shipper) -> None:
    """The same for the log of the service, and for its page."""
    program.start()
    try:
        wait_for(lambda: "forged" in program.text(), "a line about a value")
        for command in ("status", "history events"):
            check(on_terminal(program, command))
        for path in ("", "status", "metrics", "readyz?verbose"):
            with closing(HTTPConnection("localhost")) as connection:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(PATIENCE_SECONDS)
                connection.sock.connect(str(program.folder / "status.sock"))
                connection.request("GET", f"/{path}")
                check(connection.getresponse().read().decode())
    finally:
        program.stop()
    check(program.text())
