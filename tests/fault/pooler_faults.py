"""Jobs on several tables, whose sessions a pooler shares out, or a proxy ends at random."""

import random
import time
from contextlib import closing
from functools import partial

from fault.proxy import Mode, Proxy
from fault.running import fault
from fault.score import Score
from fault.stage import EVENTS_A_SECOND, Stage
from pooler import PgBouncer
from servers import PostgreSQL

WRITING_SECONDS = 10.0
LONGEST_SECONDS = 0.6  # that connections last
CUT_SECONDS = 0.1  # until a proxy has closed idle connections, too
TABLES = ("one", "two", "three")
"""Tables beside audit_trail, with ids and groups of their own: each row is written once, twice, and three times."""
JOBS = EVENTS_A_SECOND + "".join(
    EVENTS_A_SECOND.replace("events", name).replace("audit_trail", name) for name in TABLES
)
LIKE = {"mariadb": "LIKE audit_trail", "postgresql": "(LIKE audit_trail INCLUDING ALL)"}
TRIGGERS = {
    "mariadb": ["CREATE TRIGGER copying AFTER INSERT ON audit_trail FOR EACH ROW BEGIN {}; END"],
    "postgresql": [
        "CREATE FUNCTION copying() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {}; RETURN NULL; END$$",
        "CREATE TRIGGER copying AFTER INSERT ON audit_trail FOR EACH ROW EXECUTE FUNCTION copying()",
    ],
}


def pooled(mode: str, sessions: int, stage: Stage) -> list[Score]:
    """Share sessions out. Mutant: prepared statements, which may be those of another table."""
    assert isinstance(stage.server, PostgreSQL)
    _make_tables(stage)
    with closing(PgBouncer(stage.server, mode, sessions=sessions)) as pooler:
        stage.app.configure(f"127.0.0.1:{stage.server.port}/", f"127.0.0.1:{pooler.port}/")
        stage.app.start()
        stage.write()
        time.sleep(WRITING_SECONDS)
        return [stage.finish(f"PgBouncer: {mode} pooling", 1)]


def cut_at_random(stage: Stage) -> list[Score]:
    """End all connections to the database, at any moment. Mutant: record a window whose query has failed."""
    dice, cuts = random.Random(), 0
    _make_tables(stage)
    with closing(Proxy(stage.server.port)) as proxy:
        stage.app.configure(f"127.0.0.1:{stage.server.port}/", f"127.0.0.1:{proxy.port}/")
        stage.app.start()
        stage.write()
        until = time.monotonic() + WRITING_SECONDS
        while time.monotonic() < until:
            time.sleep(dice.uniform(0, LONGEST_SECONDS))
            proxy.become(Mode.RESET)
            time.sleep(CUT_SECONDS)
            proxy.become(Mode.PASS)
            cuts += 1
        return [stage.finish(f"{stage.server.name}: connections cut at random", cuts)]


def _make_tables(stage: Stage) -> None:
    """Make more tables, which a trigger fills."""
    inserts = []
    for times, name in enumerate(TABLES, 1):
        stage.execute(f"CREATE TABLE {name} {LIKE[stage.kind]}")
        values = f"NEW.created_at, CONCAT('{name}_', NEW.action), NEW.outcome"
        inserts += [f"INSERT INTO {name} (created_at, action, outcome) VALUES ({values})"] * times
    for statement in TRIGGERS[stage.kind]:
        stage.execute(statement.format("; ".join(inserts)))
    stage.others = TABLES


for _mode, _sessions in (("session", 20), ("transaction", 2)):
    fault(name=f"pooled_by_{_mode}", kind="postgresql", jobs=JOBS)(partial(pooled, _mode, _sessions))
for _kind in ("mariadb", "mysql", "postgresql"):
    fault(name=f"cut_at_random_{_kind}", kind=_kind, jobs=JOBS)(cut_at_random)
