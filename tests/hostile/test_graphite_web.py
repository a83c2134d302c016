"""A graphite-web that answers anything: each command that asks it ends with an error of one line, soon."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness import Shipper
from hostile.rogue import Rogue
from hostile.rogue_graphite import CHUNKED, SLOT, SLOW, WEB, Graphite, redirecting, told

from shipper.cli.commands import main
from shipper.core.errors import ReadbackFailed
from shipper.core.model import Span
from shipper.graphite.dashboards import graphite_web
from shipper.graphite.render_api import Readback

TABLE = "CREATE TABLE audit_trail (id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TEXT, action TEXT)"
COMMANDS = {
    "check": ["check"],
    "reconcile": ["reconcile"],
    "doctor": ["admin", "doctor", "--wait", "1s"],
    "push": ["admin", "dashboard", "graphite", "--push"],
}
EACH_KIND = (
    *("is silent", "closes at once", "resets after the request", "speaks no HTTP", "says 500 in colour", "nests"),
    *("has an endless body", "compresses", "redirects to a file", "says null", "says 5", "has 5,000 digits"),
    *("has a time of Infinity", "has equal times"),
)
"""Rows of the table for what reads by the same function as everything else."""

MANY = {
    "objects": b"[" + b'{"a":0},' * 2_000_000 + b"0]",
    "lists": b"[" + b"[]," * 5_000_000 + b"0]",
    "numbers": b"[" + b"1.5," * 4_000_000 + b"0]",
    "keys": b"{" + b",".join(b'"%x":0' % number for number in range(1_000_000)) + b"}",
}
"""Answers of 16 MB at most with many values."""
X = b"x" * 16_000_000
WIDE = {"letter": '["\U0001f600'.encode() + X + b'"]', "escape": b'["\\ud83d\\ude00' + X + b'"]'}
"""Answers of 16 MB with a text of which each letter takes four bytes."""
CHUNKS = b"2\r\n[[\r\n" * 2_200_000 + b"0\r\n\r\n"
"""Answer of 16 MB in small parts."""
LARGE = {
    **{name: ("has too many values", told(body)) for name, body in MANY.items()},
    **{name: ("is not ASCII", told(body)) for name, body in WIDE.items()},
    "chunks": ("has too many values", told(CHUNKS, CHUNKED)),
}
"""The message about each answer."""
READ = """
import re, sys
from pathlib import Path
from shipper.core.model import Span
from shipper.graphite.render_api import ReadbackFailed, Readback
def most():  # in KiB; ru_maxrss would begin with that of the parent
    return re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(most())
try:
    list(Readback(f"http://127.0.0.1:{sys.argv[1]}", timeout=60).held(["a"], Span(0, 6000), 60))
except ReadbackFailed as error:
    message = error
print(most())
print(message)
"""


class Ends:
    """A graphite-web that can become a rogue, a Carbon, and a configuration with a job that has run once."""

    def __init__(self, folder: Path) -> None:
        self.graphite = Graphite()
        self.web, self.carbon = Rogue(self.graphite.web), Rogue(self.graphite.carbon)
        table = folder / "app.db"
        with closing(sqlite3.connect(table)) as connection, connection:
            connection.execute(TABLE)
            row = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 120)), "login"
            connection.execute("INSERT INTO audit_trail (created_at, action) VALUES (?, ?)", row)
        self.app = Shipper(folder, url=f"sqlite:///{table}", port=self.carbon.port)
        lines = f'[graphite]\nrender_url = "http://127.0.0.1:{self.web.port}"'
        text = self.app.config.read_text().replace("[graphite]", lines).replace('timeout = "5s"', 'timeout = "1s"')
        self.app.config.write_text(text)
        assert self.call("once").exit_code == 0

    def call(self, *arguments: str) -> Result:
        """Run a command in this process."""
        place = [f"http://127.0.0.1:{self.web.port}"] if "--push" in arguments else []
        return CliRunner().invoke(main, [*arguments, *place, "--config", str(self.app.config)])

    def close(self) -> None:
        """Stop both."""
        self.web.close()
        self.carbon.close()


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    """Run them."""
    with closing(Ends(tmp_path_factory.mktemp("ends"))) as ends:
        yield ends


@pytest.mark.parametrize("name", WEB)
def test_readback(name: str, ends: Ends) -> None:
    """No answer of the table is believed, and none is waited for longer than the time-out; the message is one line."""
    ends.web.become(WEB[name])
    url = f"http://127.0.0.1:{ends.web.port}"
    with pytest.raises(ReadbackFailed) as caught:
        Readback(url, timeout=0.5 if name in SLOW else 60).read(["shipper.check"], SLOT)
    with pytest.raises(ReadbackFailed):
        list(Readback(url, timeout=0.5).held(["shipper.check"], Span(SLOT, SLOT + 3600), 60))

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert ("timed out" in str(caught.value)) == (name in SLOW)


@pytest.mark.parametrize("name", LARGE)
def test_memory(name: str, ends: Ends) -> None:
    """No answer takes more memory than a daemon has.

    Mutants: limit bytes alone; take objects for lists; no limit of letters, of escapes; a list of the parts.
    """
    expected, treatment = LARGE[name]
    ends.web.become(treatment)
    ended = subprocess.run(
        [sys.executable, "-c", READ, str(ends.web.port)], capture_output=True, text=True, check=True, timeout=120
    )
    before, after, message = ended.stdout.splitlines()

    assert expected in message
    assert int(after) - int(before) < 120 * 1024


def test_many_datapoints(ends: Ends) -> None:
    """An answer with the values of a year in slots of a minute is taken. Mutant: a lower limit."""
    slots = range(SLOT, SLOT + 60 * 525_600, 60)
    ends.web.become(told(b'[{"target":"a","datapoints":[' + b",".join(b"[1.0,%d]" % slot for slot in slots) + b"]}]"))
    ((_, data),) = Readback(f"http://127.0.0.1:{ends.web.port}", timeout=60).held(["a"], Span(SLOT, SLOT + 3600), 60)

    assert len(data.values) == 525_600


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command ends with an error, whatever graphite-web answers, and works once it is well."""
    monkeypatch.setattr(graphite_web, "TIMEOUT_SECONDS", 1.0)
    for name in EACH_KIND:
        ends.web.become(WEB[name])
        result = ends.call(*COMMANDS[command])

        assert result.exit_code == 1, (name, result.output)
        assert isinstance(result.exception, SystemExit), name
        assert "\x1b]" not in result.output, name
        assert ("✗ graphite: read back" if command == "check" else "error: ") in result.output, (name, result.output)

    ends.web.become(ends.graphite.web)
    result = ends.call(*COMMANDS[command])
    assert result.exit_code == 0, result.output


def test_redirect_to_another_server(ends: Ends) -> None:
    """A redirect is a failure that names its target, which is not asked. Mutant: follow it."""
    with closing(Rogue(ends.graphite.web)) as other:
        ends.web.become(redirecting(f"http://127.0.0.1:{other.port}/render"))
        result = ends.call("check")

        assert f"HTTP 302 Found: it redirects to http://127.0.0.1:{other.port}/render" in result.output
        assert other.connections == 0
