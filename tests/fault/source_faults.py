"""MariaDB and MySQL: killed, restarted, sessions ended, a broken network."""

import signal
import time
from contextlib import closing, suppress
from functools import partial

import pymysql
from fault.proxy import Mode, Proxy
from fault.running import fault
from fault.score import Score
from fault.stage import Stage

OTHERS = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"


def restarted(number: signal.Signals, stage: Stage) -> list[Score]:
    """End MariaDB, and start it again. Mutant: record a window whose query has failed."""
    stage.app.start()
    stage.write()
    for _ in range(3):
        stage.wait("delivery.finished")
        with stage.until("observation.failed"):
            stage.mariadb.stop(number)
        with stage.until("observation.recovered"):
            stage.mariadb.start()
    return [stage.finish(f"{stage.mariadb.name}: {number.name}, restarted", 3)]


for _number in (signal.SIGKILL, signal.SIGTERM):
    fault(name=f"database_{_number.name.lower()}", on_mysql=True, has_own_server=True)(partial(restarted, _number))


@fault(on_mysql=True)
def database_sessions_killed(stage: Stage) -> list[Score]:
    """End all sessions, again and again. Mutant: record a window whose query has failed."""
    stage.app.start()
    stage.write()
    stage.wait("delivery.finished")
    kills = 0
    with closing(stage.mariadb.connect()) as connection, connection.cursor() as cursor:
        for _ in range(40):
            cursor.execute(OTHERS, (stage.database,))
            sessions = cursor.fetchall()
            for (session,) in sessions:
                with suppress(pymysql.err.OperationalError):  # the session has just ended by itself
                    cursor.execute(f"KILL {session}")
            kills += len(sessions)
            time.sleep(0.1)
    return [stage.finish(f"{stage.mariadb.name}: sessions killed", kills)]


@fault(on_mysql=True)
def database_unreachable(stage: Stage) -> list[Score]:
    """Reset, refuse, stall connections to MariaDB. Mutant: no timeout in the client."""
    stage.app.configure('timeout = "10s"', 'timeout = "1s"')
    with closing(Proxy(stage.mariadb.port)) as proxy:
        stage.app.configure(f"127.0.0.1:{stage.mariadb.port}/", f"127.0.0.1:{proxy.port}/")
        stage.app.start()
        stage.write()
        for mode in (Mode.RESET, Mode.REFUSE, Mode.BLACKHOLE):
            stage.wait("delivery.finished")
            with stage.until("observation.failed"):
                proxy.become(mode)
            with stage.until("observation.recovered"):
                proxy.become(Mode.PASS)
        return [stage.finish(f"{stage.mariadb.name}: connections reset, refused, silent", 3)]
