"""Rows that commit late: behind settle, past the guard, into old ids, on a replica; a table that goes back."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import pymysql
from fault.running import fault
from fault.score import Score
from fault.stage import EVENTS_A_SECOND, Stage
from harness import wait_for
from servers import MariaDB

LATE_SECONDS = 5.0
WRITING_SECONDS = 10.0
SHORT_RECHECK = "24s"  # far longer than anything here is late
STALLS_SECONDS = (3.0, 5.0, 4.0)
BEAT_SECONDS = 0.2
LAG_QUERY = "SELECT TIMESTAMPDIFF(MICROSECOND, MAX(beat), UTC_TIMESTAMP(6)) / 1000000 FROM heartbeat"

LAYERS = {
    "late_guard": ("guard alone", 'recheck = "off"'),
    "late_passed": ("guard passed after 2 s", f'hold_max = "2s"\nrecheck = "{SHORT_RECHECK}"'),
    "late_recheck": ("recheck alone", f'guard = "off"\nrecheck = "{SHORT_RECHECK}"'),
}


def overlapping(layers: str, keys: str, stage: Stage) -> list[Score]:
    """Commit rows up to 5 s after their INSERT, with a settle of 1 s. Mutant: take rows in flight for none."""
    _say(stage, keys)
    stage.app.start()
    stage.write(longest=LATE_SECONDS)
    time.sleep(WRITING_SECONDS)  # as long as the fault lasts
    stage.still()
    return [stage.finish(f"commits up to 5 s late, settle 1 s, {layers}", 1)]


for _name, (_layers, _keys) in LAYERS.items():
    fault(name=_name, settle="1s")(partial(overlapping, _layers, _keys))


@fault(settle="1s")
def back_filled(stage: Stage) -> list[Score]:
    """Write rows with explicit ids into holes far below. Mutant: record no windows."""
    _say(stage, f'recheck = "{SHORT_RECHECK}"')
    stage.app.start()
    stage.write(back_fills=True)
    time.sleep(WRITING_SECONDS)
    stage.still()
    score = stage.finish("ids back-filled", 1)
    assert "rows.late" in stage.app.events()
    return [score]


@fault(settle="1s", jobs=EVENTS_A_SECOND, has_own_mariadb=True)
def replica_stalls(stage: Stage) -> list[Score]:
    """Let a replica stand still, with `lag_query`. Mutant: settle by our clock alone."""
    (stage.app.folder / "replica").mkdir()
    replica = MariaDB(stage.app.folder / "replica", ["--server-id=2"])
    try:
        with _replicated(stage, replica) as cursor:
            _say(stage, f'lag_query = "{LAG_QUERY}"\nrecheck = "off"')
            stage.configure(f"127.0.0.1:{stage.mariadb.port}/", f"127.0.0.1:{replica.port}/")
            stage.app.start()
            stage.write()
            stage.wait("delivery.finished")
            for seconds in STALLS_SECONDS:
                cursor.execute("STOP SLAVE SQL_THREAD")
                time.sleep(seconds)
                cursor.execute("START SLAVE SQL_THREAD")
                stage.wait("delivery.finished")
            return [stage.finish("replica stands still for 3 to 5 s", len(STALLS_SECONDS))]
    finally:
        stage.app.stop(signal.SIGKILL)
        replica.stop()


@fault(settle="1s", jobs=EVENTS_A_SECOND)
def table_emptied(stage: Stage) -> list[Score]:
    """Empty the table, so that ids begin anew. Mutant: go on behind captured."""
    stage.app.start()
    stage.write()
    stage.wait("delivery.finished")
    stage.still()
    with stage.until("largest id is"), closing(stage.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE audit_trail")
    stage.write()
    time.sleep(2)  # nothing of it is counted
    assert stage.app.stop() == 0
    _say(stage, 'reset = "zero"')
    stage.app.start()
    return [stage.finish("table emptied, reset = zero", 1)]


@fault(settle="1s", jobs=EVENTS_A_SECOND)
def commits_lost(stage: Stage) -> list[Score]:
    """Take the newest rows back, and give their ids again, as a crash without flushed logs does. Mutant: the same."""
    stage.app.start()
    stage.write()
    stage.wait("delivery.finished")
    stage.still()
    wait_for(stage.is_at_rest, "all is captured")
    assert stage.app.stop() == 0
    with closing(stage.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_trail ORDER BY id DESC LIMIT 40")
        cursor.execute("ALTER TABLE audit_trail AUTO_INCREMENT = 1")
    stage.write()
    time.sleep(3)  # ids pass captured again
    stage.app.start()
    stage.wait("are not those that were captured")
    assert stage.app.stop() == 0
    _say(stage, 'reset = "max"')
    stage.app.start()
    return [stage.finish("newest rows taken back, their ids given again, reset = max", 1)]


def _say(stage: Stage, keys: str) -> None:
    """Add keys to the source."""
    stage.configure('settle = "1s"', f'settle = "1s"\n{keys}')


@contextmanager
def _replicated(stage: Stage, replica: MariaDB) -> Iterator[pymysql.cursors.Cursor]:
    """Let the replica follow, with a heartbeat; give a session on it."""
    primary = stage.mariadb.connect(stage.database)
    with closing(primary), primary.cursor() as cursor, closing(replica.connect()) as other, other.cursor() as follower:
        cursor.execute("CREATE TABLE heartbeat (id INT PRIMARY KEY, beat DATETIME(6))")
        source = f"MASTER_HOST = '127.0.0.1', MASTER_PORT = {stage.mariadb.port}, MASTER_USER = 'root'"
        follower.execute(f"CHANGE MASTER TO {source}, MASTER_USE_GTID = slave_pos")
        follower.execute("START SLAVE")
        stopping = threading.Event()

        def beat() -> None:
            while not stopping.wait(BEAT_SECONDS):
                cursor.execute("REPLACE INTO heartbeat VALUES (1, UTC_TIMESTAMP(6))")

        heart = threading.Thread(target=beat)
        heart.start()
        try:
            yield follower
        finally:
            stopping.set()
            heart.join()
