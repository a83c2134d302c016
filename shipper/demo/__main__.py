"""Demonstration without servers: a real Carbon, the real daemon, and a kill -9 in between. `./deploy/demo` runs it."""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click

from shipper.cli.output import complain
from shipper.core.errors import ShipperError
from shipper.demo.audit_trail import AuditTrail
from shipper.demo.carbon_cache import CarbonCache

CATCH_UP_SECONDS = 30.0

_CONFIG = """\
[state]
path = "{folder}/shipper.db"

[graphite]
port = {port}
prefix = "demo"
retentions = "1s:6h"

[source.demo]
url = "{url}"

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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shipper-demo-")))
        carbon = CarbonCache(folder / "carbon", retentions="1s:6h")
        stack.callback(carbon.close)
        carbon.start()
        click.echo(f"carbon-cache listens on port {carbon.port}; its files are in {folder}/carbon")
        trail = AuditTrail(folder / "app.db")
        config = folder / "shipper.toml"
        config.write_text(_CONFIG.format(folder=folder, port=carbon.port, url=trail.url))
        daemon = _Daemon(config, folder / "shipper.log")
        stack.callback(daemon.stop, signal.SIGKILL)

        # grow in two halves, with a kill between them
        trail.start()
        daemon.start()
        _watch(trail, carbon, seconds=seconds / 2)
        click.secho("  kill -9: the daemon is dead, the audit trail keeps growing", fg="red")
        daemon.stop(signal.SIGKILL)
        _watch(trail, carbon, seconds=2)
        click.secho("  the daemon starts again, as after any other exit", fg="green")
        daemon.start()
        _watch(trail, carbon, seconds=seconds / 2)
        trail.stop()

        # wait until Graphite equals the table
        expected = trail.counts()
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while _shipped(carbon) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        daemon.stop(signal.SIGTERM)
        # show what Graphite holds
        shipped = _shipped(carbon)
        _chart(shipped)
        if shipped != expected:
            click.echo(f"\nthe daemon's log:\n{(folder / 'shipper.log').read_text()}")
        return _verdict(expected, shipped)


class _Daemon:
    """`shipper run` in a process."""

    def __init__(self, config: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "shipper.cli", "run", "--config", str(config)]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log)  # noqa: S603 - our own command

    def stop(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


def _watch(trail: AuditTrail, carbon: CarbonCache, *, seconds: float) -> None:
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
