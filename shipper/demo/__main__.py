"""Demonstration without servers: a real Carbon, the real daemon, and a kill -9 in between. `./deploy/demo` runs it."""

import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from shipper.cli.output import complain
from shipper.core.errors import ShipperError
from shipper.demo.carbon_cache import CarbonCache

ACTIONS = ("login", "logout", "export")
PAUSE_SECONDS = 0.05
CATCH_UP_SECONDS = 30.0

_CONFIG = """\
[state]
path = "{folder}/shipper.db"

[graphite]
port = {port}
prefix = "demo"
retentions = "1s:6h"

[source.demo]
url = "sqlite:///{folder}/app.db"

[job.events]
title = "Events per second, by action"
table = "audit_trail"
id    = "id"
time  = "created_at"
by    = ["action"]
name  = "events.{{action}}.{{measure}}"
every = "1s"
bucket = "1s"
start = "beginning"
"""
_TABLE = """
    CREATE TABLE audit_trail (id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TEXT NOT NULL, action TEXT NOT NULL)"""
_INSERT = "INSERT INTO audit_trail (created_at, action) VALUES (?, ?)"
_COUNTS = """
    SELECT action, CAST(strftime('%s', substr(created_at, 1, 19)) AS INTEGER), COUNT(*)
    FROM audit_trail GROUP BY 1, 2"""

Series = dict[str, dict[int, int]]


@click.command()
@click.option("--seconds", default=20, show_default=True, help="Time for which the audit trail grows.")
def main(seconds: int) -> None:
    """Run a job with a real Carbon and an SQLite table: the daemon is killed once, and the sums are still equal."""
    try:
        sys.exit(0 if show(seconds) else 1)
    except ShipperError as error:
        complain(error)
        sys.exit(1)


def show(seconds: int) -> bool:
    """Ship an audit trail that grows for some seconds; return whether Graphite equals the table in the end.

    Raises:
        ConfigError: this machine has no carbon-cache.
    """
    with (
        tempfile.TemporaryDirectory(prefix="shipper-demo-") as folder,
        closing(CarbonCache(Path(folder, "carbon"), retentions="1s:6h")) as carbon,
    ):
        carbon.start()
        click.echo(f"carbon-cache listens on port {carbon.port}; its files are in {folder}/carbon")
        trail = _AuditTrail(Path(folder, "app.db"))
        config, log = Path(folder, "shipper.toml"), Path(folder, "shipper.log")
        config.write_text(_CONFIG.format(folder=folder, port=carbon.port))

        # grow in two halves, with a kill between them
        trail.start()
        with _daemon(config, log):
            _watch(trail, carbon, seconds=seconds / 2)
            click.secho("  kill -9: the daemon is dead, the audit trail keeps growing", fg="red")
        _watch(trail, carbon, seconds=2)
        click.secho("  the daemon starts again, as after any other exit", fg="green")
        with _daemon(config, log) as daemon:
            _watch(trail, carbon, seconds=seconds / 2)
            trail.stop()

            # wait until Graphite equals the table
            expected = trail.counts()
            deadline = time.monotonic() + CATCH_UP_SECONDS
            while _shipped(carbon) != expected and time.monotonic() < deadline:
                time.sleep(0.2)
            daemon.terminate()
            daemon.wait()
        # show what Graphite holds
        shipped = _shipped(carbon)
        _chart(shipped)
        if shipped != expected:
            click.echo(f"\nthe daemon's log:\n{log.read_text()}")
        return _verdict(expected, shipped)


@contextmanager
def _daemon(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `shipper run` in a process, and kill it at the end."""
    command = [sys.executable, "-m", "shipper.cli", "run", "--config", str(config)]
    with log.open("ab") as opened, subprocess.Popen(command, stderr=opened) as process:  # noqa: S603 - our own command
        try:
            yield process
        finally:
            process.kill()


class _AuditTrail:
    """An audit trail in SQLite, and a thread that adds rows to it until `stop`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._grow, daemon=True)
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_TABLE)

    def start(self) -> None:
        """Start to add rows."""
        self._thread.start()

    def stop(self) -> None:
        """Stop adding rows."""
        self._stop.set()
        self._thread.join()

    def counts(self) -> Series:
        """Return the number of rows by action and second, which Graphite must equal."""
        counts: Series = {}
        with closing(self._connect()) as connection:
            for action, second, rows in connection.execute(_COUNTS):
                counts.setdefault(action, {})[second] = rows
        return counts

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=10, isolation_level=None)

    def _grow(self) -> None:
        dice = random.Random(7)  # noqa: S311 - demonstration data
        with closing(self._connect()) as connection:
            while not self._stop.wait(PAUSE_SECONDS):
                now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
                connection.execute("BEGIN")
                connection.executemany(_INSERT, [(now, dice.choice(ACTIONS)) for _ in range(dice.randint(0, 5))])
                connection.execute("COMMIT")


def _watch(trail: _AuditTrail, carbon: CarbonCache, *, seconds: float) -> None:
    """Print each second the number of rows in the table, and in Graphite."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        click.echo(f"  {_sum(trail.counts()):5} rows in the table, {_sum(_shipped(carbon)):5} in Graphite")


def _shipped(carbon: CarbonCache) -> Series:
    """Return the counts in Graphite by action and second, without the zeros of quiet seconds."""
    return {
        path.split(".")[2]: {slot: int(value) for slot, value in slots.items() if value}
        for path, slots in carbon.sums().items()
        if slots and path.startswith("demo.events.")  # not shipper's own metrics
    }


def _sum(series: Series) -> int:
    return sum(sum(slots.values()) for slots in series.values())


def _chart(shipped: Series) -> None:
    import plotext  # noqa: PLC0415 - of the demo extra

    seconds = Counter[int]()
    for slots in shipped.values():
        seconds.update(slots)
    first = min(seconds, default=0)
    span = range(first, max(seconds, default=0) + 1)
    plotext.clear_figure()
    plotext.theme("clear" if not sys.stdout.isatty() else "default")
    plotext.plot_size(min(100, plotext.terminal_width() or 80), 14)
    plotext.bar([second - first for second in span], [seconds[second] for second in span])
    plotext.title("events per second, read from Whisper")
    click.echo(plotext.build())


def _verdict(expected: Series, shipped: Series) -> bool:
    is_equal = expected == shipped
    word = click.style("equal", fg="green", bold=True) if is_equal else click.style("NOT EQUAL", fg="red", bold=True)
    rows, total = _sum(expected), _sum(shipped)
    click.echo(f"{rows} rows in the table, {total} in Graphite, second by second and series by series: {word}")
    return is_equal


if __name__ == "__main__":
    main()
