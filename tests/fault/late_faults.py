"""Late rows: on each server, on a replica, after minutes, with old ids; a table that goes back."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pymysql
from fault.running import fault
from fault.score import Score
from fault.stage import EVENTS_A_SECOND, Stage
from harness import wait_for
from servers import MariaDB

LATE_SECONDS = 5.0
WRITING_SECONDS = 10.0
MINUTES_LATE = 10.0  # scaled: of as many minutes
LATE = 'late = "20s"'
"""Scaled: of 20 minutes."""
TAKEN_BACK, FEWEST_ROWS = 40, 200
STALLS_SECONDS = (3.0, 5.0, 4.0)
BEAT_SECONDS = 0.2
LAG_QUERY = "SELECT TIMESTAMPDIFF(MICROSECOND, MAX(beat), UTC_TIMESTAMP(6)) / 1000000 FROM heartbeat"
LATE_ROWS = "SELECT COALESCE(SUM(late_rows), 0) FROM position"
SCALED = str(Path(__file__).with_name("scaled.py"))


@fault(kind="postgresql")
def late_on_postgresql(stage: Stage) -> list[Score]:
    """Commit rows up to 5 s after their INSERT. Mutant: ask for no gaps."""
    stage.app.start()
    stage.write(longest=LATE_SECONDS)
    time.sleep(WRITING_SECONDS)  # as long as the fault lasts
    _wait_for_late_rows(stage)
    return [stage.finish("PostgreSQL: commits up to 5 s late", 1)]


def late_by_minutes(stage: Stage) -> list[Score]:
    """Commit rows up to 10 minutes after their INSERT, scaled. Mutants: no looks at gaps but the eager ones."""
    _say(stage, LATE)
    stage.app.start()
    stage.write(longest=MINUTES_LATE)
    time.sleep(WRITING_SECONDS + MINUTES_LATE)
    _wait_for_late_rows(stage)
    return [stage.finish(f"{stage.server.name}: commits up to 10 min late, scaled", 1)]


for _kind in ("mariadb", "mysql", "postgresql"):
    fault(name=f"late_by_minutes_{_kind}", kind=_kind, program=(SCALED,))(late_by_minutes)


@fault(on_mysql=True)
def back_filled(stage: Stage) -> list[Score]:
    """Write rows with explicit ids into gaps far below. Mutant: ask for no gaps."""
    stage.app.start()
    stage.write(back_fills=True)
    time.sleep(WRITING_SECONDS)
    _wait_for_late_rows(stage)
    return [stage.finish(f"{stage.server.name}: ids back-filled", 1)]


@fault(on_mysql=True, jobs=EVENTS_A_SECOND, has_own_server=True)
def replica_stalls(stage: Stage) -> list[Score]:
    """Stop a replica, with `lag_query`; rows commit late on its primary. Mutant: ask for no gaps."""
    (stage.app.folder / "replica").mkdir()
    replica = type(stage.mariadb)(stage.app.folder / "replica", ["--server-id=2"])
    try:
        with _replicated(stage, replica) as cursor:
            _say(stage, f'lag_query = "{LAG_QUERY}"')
            stage.app.configure(f"127.0.0.1:{stage.mariadb.port}/", f"127.0.0.1:{replica.port}/")
            stage.app.start()
            stage.write(longest=LATE_SECONDS)
            stage.wait("delivery.finished")
            for seconds in STALLS_SECONDS:
                cursor.execute("STOP REPLICA SQL_THREAD")
                time.sleep(seconds)
                cursor.execute("START REPLICA SQL_THREAD")
                stage.wait("delivery.finished")
            return [
                stage.finish(f"{stage.server.name}: replica stands still, commits up to 5 s late", len(STALLS_SECONDS))
            ]
    finally:
        stage.app.stop(signal.SIGKILL)
        replica.stop()


@fault(on_mysql=True, jobs=EVENTS_A_SECOND)
def table_emptied(stage: Stage) -> list[Score]:
    """Empty the table, so that ids start again; an operator resets the jobs. Mutant: continue behind captured."""
    stage.app.start()
    stage.write()
    stage.wait("delivery.finished")
    stage.empty("TRUNCATE audit_trail")
    stage.write()
    time.sleep(2)  # none of its rows is counted
    _reset(stage, "--emptied")
    return [stage.finish(f"{stage.server.name}: table emptied, reset --emptied", 1)]


@fault(on_mysql=True, jobs=EVENTS_A_SECOND)
def commits_lost(stage: Stage) -> list[Score]:
    """Remove the newest rows, and use their ids again, as a crash without flushed logs does.

    Delivered totals stay, until an operator recounts the table. Mutant: continue behind captured.
    """
    # rows of the oldest slot may be purged: a backfill leaves it out
    stage.execute("INSERT INTO audit_trail (created_at, action) VALUES (UTC_TIMESTAMP() - INTERVAL 1 MINUTE, 'login')")
    stage.app.start()
    stage.write()
    wait_for(lambda: stage.count() > FEWEST_ROWS, "rows")
    stage.still()
    wait_for(stage.is_at_rest, "all is captured")
    assert stage.app.stop() == 0
    captured = stage.largest("audit_trail")
    stage.execute(f"DELETE FROM audit_trail ORDER BY id DESC LIMIT {TAKEN_BACK}")
    stage.execute("ALTER TABLE audit_trail AUTO_INCREMENT = 1")
    stage.write()
    wait_for(lambda: stage.largest("audit_trail") > captured, "ids pass captured again")
    with stage.until("changed since they were captured"):
        stage.app.start()
    _reset(stage, "--restored")
    stage.still()
    with stage.until("capture.finished"):
        stage.insert(1)
    wait_for(stage.is_at_rest, "all is captured")
    ended = stage.app.call("backfill", "events", "--from", "1h", "--until", "now", "--yes")
    assert ended.returncode == 0, ended.stderr
    return [stage.finish(f"{stage.server.name}: newest rows taken back, their ids given again, reset --restored", 1)]


def _wait_for_late_rows(stage: Stage) -> None:
    """Wait until rows were late, which takes longer on a busy machine."""
    wait_for(lambda: stage.ask(LATE_ROWS) > 0, "late rows")


def _reset(stage: Stage, what: str) -> None:
    """Reset the jobs as an operator does."""
    ended = stage.app.call("reset", "events", what, "--yes")
    assert ended.returncode == 0, ended.stderr


def _say(stage: Stage, keys: str) -> None:
    """Add keys to the source."""
    stage.app.configure('timeout = "10s"', f'timeout = "10s"\n{keys}')


@contextmanager
def _replicated(stage: Stage, replica: MariaDB) -> Iterator[pymysql.cursors.Cursor]:
    """Let the replica follow, with a heartbeat table; return a session on it."""
    primary = stage.mariadb.connect(stage.database)
    with closing(primary), primary.cursor() as cursor, closing(replica.connect()) as other, other.cursor() as follower:
        cursor.execute("CREATE TABLE heartbeat (id INT PRIMARY KEY, beat DATETIME(6))")
        replica.follow(stage.mariadb)
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
