"""The state: a full disk; a file that another process has locked, that is damaged, or restored from a backup."""

import resource
import shutil
import sqlite3
import time
from contextlib import closing

from fault.running import fault
from fault.score import Score
from fault.stage import EVENTS_A_SECOND, Stage
from harness import wait_for

FULL_BYTES = 65_536
"""Size limit of files: above the daemon's log, within the state's -wal file."""


@fault()
def state_disk_full(stage: Stage) -> list[Score]:
    """Keep all files from growing for a while. Mutant: let SQLite's errors through."""
    wal = stage.app.folder / "shipper.db-wal"
    stage.app.start()
    stage.write()
    for _ in range(3):
        stage.wait("delivery.finished")
        wait_for(lambda: wal.stat().st_size > FULL_BYTES, "a -wal file of some length")
        with stage.until("capture.failed"):
            _limit(stage, FULL_BYTES)
        time.sleep(1)
        with stage.until("capture.recovered"):
            _limit(stage, resource.RLIM_INFINITY)
    assert "disk" in stage.app.text()
    return [stage.finish("state: disk full", 3)]


@fault()
def state_locked(stage: Stage) -> list[Score]:
    """Lock the state for longer than shipper waits for it. Mutant: let SQLite's errors through."""
    stage.app.start()
    stage.write()
    for _ in range(2):
        stage.wait("delivery.finished")
        with closing(sqlite3.connect(stage.app.folder / "shipper.db", isolation_level=None)) as client:
            with stage.until("database is locked"):
                client.execute("BEGIN EXCLUSIVE")
            time.sleep(1)
            client.execute("ROLLBACK")
        stage.wait("capture.finished")
    return [stage.finish("state: locked by another client", 2)]


@fault(jobs=EVENTS_A_SECOND)
def state_brought_back(stage: Stage) -> list[Score]:
    """Damage the state, and continue with an older copy: jobs with a time column are equal at the end.

    Mutant: let SQLite's errors through.
    """
    state, copy = stage.app.folder / "shipper.db", stage.app.folder / "copy.db"
    stage.app.start()
    stage.write()
    stage.wait("delivery.finished")
    assert stage.app.stop() == 0
    shutil.copy(state, copy)
    stage.app.start()
    stage.wait("delivery.finished")
    stage.wait("delivery.finished")
    assert stage.app.stop() == 0

    # half of a file is rejected with a hint, and not changed
    half = state.read_bytes()[: state.stat().st_size // 2]
    state.write_bytes(half)
    ended = stage.app.call("once")
    assert ended.returncode == 1
    assert "malformed" in ended.stderr
    assert "restore the state from a backup" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert state.read_bytes() == half
    shutil.copy(copy, state)
    stage.app.start()
    return [stage.finish("state: damaged, an older copy brought back", 1)]


def _limit(stage: Stage, size_bytes: float) -> None:
    resource.prlimit(stage.app.pid, resource.RLIMIT_FSIZE, (int(size_bytes), resource.RLIM_INFINITY))
