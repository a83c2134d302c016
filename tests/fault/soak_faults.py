"""All faults at random, several at once, for the time of `--soak`; on each server.

Rows commit up to ten minutes late, scaled; some are rolled back, counted ones are deleted and purged, ids come in steps
of three, the table is rewritten, and jobs change. A trigger keeps all rows that were ever committed.
"""

import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

from fault.late_faults import LATE, MINUTES_LATE, SCALED
from fault.proxy import Mode, Proxy
from fault.running import fault
from fault.score import Score
from fault.stage import Stage
from fault.writers import GONE

from shipper.core.id_set import ids_of
from shipper.state import positions

SHORT_SECONDS = 60.0  # without --soak
LONGEST_SECONDS = 4.0  # of one fault
DELETED, PURGED = 5, 200
NEWEST = 100  # are never deleted: a table whose newest rows are gone may be another one
BROKEN = (Mode.REFUSE, Mode.RESET, Mode.HALF_READ, Mode.BLACKHOLE)
COPY = "INSERT INTO ever VALUES (NEW.id, NEW.created_at, NEW.action, NEW.outcome)"
EVER = "CREATE TABLE ever AS SELECT id, created_at, action, outcome FROM audit_trail"
PREPARED = {
    "mariadb": [
        EVER,
        f"CREATE TRIGGER keeping AFTER INSERT ON audit_trail FOR EACH ROW {COPY}",
        "SET GLOBAL auto_increment_increment = 3",
    ],
    "postgresql": [
        EVER,
        f"CREATE FUNCTION keeping() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {COPY}; RETURN NULL; END$$",
        "CREATE TRIGGER keeping AFTER INSERT ON audit_trail FOR EACH ROW EXECUTE FUNCTION keeping()",
        "ALTER TABLE audit_trail ALTER id SET INCREMENT BY 3",
    ],
}
REWRITE = {
    "mariadb": ["SET lock_wait_timeout = 1", "ALTER TABLE audit_trail ENGINE = InnoDB"],
    "postgresql": ["SET lock_timeout = '1s'", "VACUUM FULL audit_trail"],
}
ENDS = {"mariadb": [signal.SIGKILL, signal.SIGTERM], "postgresql": [signal.SIGQUIT, signal.SIGINT]}
"""The signals of a server's crash and of its stop."""
DEFINITIONS = ('by = ["action"]\n', 'by = ["action"]\nmeasure = { count = "count", ids = "sum:id" }\n')


def all_at_random(stage: Stage) -> list[Score]:
    """Do anything at any time. Mutant: any mutant of the other faults."""
    dice, struck = random.Random(), 0
    for statement in PREPARED[stage.kind]:
        stage.execute(statement)
    stage.table = "ever"
    stage.app.configure('timeout = "10s"', f'timeout = "2s"\n{LATE}')
    with closing(Proxy(stage.carbon.port)) as carbon, closing(Proxy(stage.server.port)) as database:
        stage.app.configure(f"port = {stage.carbon.port}\n", f"port = {carbon.port}\n")
        stage.app.configure(f"127.0.0.1:{stage.server.port}/", f"127.0.0.1:{database.port}/")
        faults = _faults(stage, dice)
        faults += [partial(break_off, carbon, dice), partial(break_off, database, dice)]
        stage.app.start()
        stage.write(longest=MINUTES_LATE)
        until = time.monotonic() + (stage.soak_seconds or SHORT_SECONDS)
        while time.monotonic() < until:
            dice.choice(faults)()
            struck += 1
            time.sleep(dice.uniform(0, 2))
        return [stage.finish(f"{stage.server.name}: all at random", struck)]


for _kind in (*PREPARED, "mysql"):
    options: dict[str, Any] = {"replay": '["3s", "6s", "9s"]', "program": (SCALED,)}
    name = f"all_at_random_{_kind}"
    fault(name=name, kind=_kind, has_own_server=True, is_long=True, **options)(all_at_random)


def _faults(stage: Stage, dice: random.Random) -> list[Callable[[], None]]:
    def restart_shipper() -> None:
        stage.app.stop(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        _pause(dice)
        stage.app.start()

    def restart_carbon() -> None:
        stage.carbon.stop(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        _pause(dice)
        stage.carbon.start()

    def freeze_carbon() -> None:
        stage.carbon.send_signal(signal.SIGSTOP)
        _pause(dice)
        stage.carbon.send_signal(signal.SIGCONT)

    def restart_server() -> None:
        stage.server.stop(dice.choice(ENDS[stage.kind]))
        _pause(dice)
        stage.server.start()

    def change_definition() -> None:
        before, after = DEFINITIONS if DEFINITIONS[1] not in stage.app.config.read_text() else DEFINITIONS[::-1]
        stage.app.configure(before, after)
        ended = stage.app.call("admin reload")
        assert ended.returncode == 0, ended.stderr

    def rewrite() -> None:
        with suppress(*GONE), stage.session() as execute:  # it waits for a long transaction
            for statement in REWRITE[stage.kind]:
                execute(statement)

    return [
        *(restart_shipper, restart_carbon, freeze_carbon, restart_server, change_definition, rewrite),
        *(partial(_delete, stage, dice, is_purge=is_purge) for is_purge in (False, True)),
    ]


def _delete(stage: Stage, dice: random.Random, *, is_purge: bool) -> None:
    """Delete rows that all jobs have counted: some, or the oldest."""
    counted = _counted(stage)[:-NEWEST]
    chosen = counted[:PURGED] if is_purge else dice.sample(counted, min(DELETED, len(counted)))
    if chosen:
        stage.execute(f"DELETE FROM audit_trail WHERE id IN ({', '.join(map(str, chosen))})")


def _counted(stage: Stage) -> list[int]:
    """Return which ids all jobs have counted, of those that are not old."""
    with closing(sqlite3.connect(stage.app.folder / "shipper.db")) as connection:
        found = []
        for (job,) in connection.execute("SELECT job FROM position").fetchall():
            position = positions.read(connection, job)
            found.append(set(ids_of(position.counted.within(0, position.captured))))
    return sorted(set.intersection(*found)) if found else []


def break_off(proxy: Proxy, dice: random.Random) -> None:
    """Let a proxy misbehave for a while."""
    proxy.become(dice.choice(BROKEN))
    _pause(dice)
    proxy.become(Mode.PASS)


def _pause(dice: random.Random) -> None:
    time.sleep(dice.uniform(0, LONGEST_SECONDS))
