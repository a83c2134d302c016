"""What the database has to do for jobs that tick: against their counts alone, asked by hand over the same windows."""

from collections.abc import Iterator
from typing import NamedTuple

import pymysql
from daemons import daemon
from ground import COUNTS, IDS, Ground, Ids, Work
from measured import Measured
from processes import told

ROWS = 500  # that come every half second


class Window(NamedTuple):
    """Ids that a job has captured in one tick: above after, up to upto."""

    after: int
    upto: int


def database(ground: Ground) -> list[Measured]:
    """50 jobs on one table, every second, while rows come, with ids as different tables have them."""
    return [line for name, ids in IDS.items() for line in against_plain(ground, f", {name}".rstrip(", "), ids)]


def against_plain(ground: Ground, which: str, ids: Ids) -> list[Measured]:
    """Hold statements, rows and processor time of the server against those of the counts alone."""
    target = 1.3 if which else 1.1
    ground.table(1000, ids=ids)
    ours, windows = _ticking(ground, ids)
    plain, ticks = _plain(ground, windows), max(len(windows), 1)
    other = "count alone"
    return [
        Measured(f"statements a tick{which}", ours.statements / ticks, other, plain.statements / ticks, "", target),
        Measured(f"rows read a tick{which}", ours.rows / ticks, other, plain.rows / ticks, "", target),
        Measured(
            f"its processor a tick{which}", 1e3 * ours.seconds / ticks, other, 1e3 * plain.seconds / ticks, "ms", target
        ),
    ]


def _ticking(ground: Ground, ids: Ids) -> tuple[Work, list[Window]]:
    """Let the daemon tick; return what that was for the server, and what each tick has captured.

    What a tick asks before the clock starts and captures after it makes up for the same at the end.
    """
    ground.configure(jobs=ground.sizes.few_jobs, start="now")

    def grow() -> None:
        ground.insert(ROWS, seconds=1, ids=ids)

    with daemon(ground) as service:
        service.until("capture.finished", ground.sizes.few_jobs, grow)
        service.wait(ground.sizes.minute, grow)  # each look asks for the gaps of the newest minute: it must be full
        service.between_rounds("capture.finished", grow)
        before, seen = ground.work("shipper"), service.count("capture.finished")
        service.wait(ground.sizes.seconds, grow)
        service.between_rounds("capture.finished", grow)
        after, log = ground.work("shipper"), service.text()
    return after.since(before), list(_windows(log))[seen:]


def _windows(log: str) -> Iterator[Window]:
    """Find what each tick of a log has captured."""
    captured = {entry["job"]: int(entry["captured"]) for entry in told(log, "job.started")}
    for entry in told(log, "capture.finished"):
        assert entry["windows"] == "1", f"more than one count in a tick: {entry}"
        job, upto = entry["job"], int(entry["captured"])
        yield Window(captured[job], upto)
        captured[job] = upto


def _plain(ground: Ground, windows: list[Window]) -> Work:
    """Ask for the same counts, and for nothing else."""
    connection = pymysql.connect(host="127.0.0.1", port=ground.mysql.port, user="plain", database=ground.database)
    with connection, connection.cursor() as cursor:
        before = ground.work("plain")
        for window in windows:
            cursor.execute(COUNTS.format(after=window.after, upto=window.upto))
            cursor.fetchall()
    return ground.work("plain").since(before)
