"""Sessions that write into the audit trail as an application does: overlapping, late, rolled back, into gaps."""

import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import psycopg
import pymysql
from tables import Execute

Connection: TypeAlias = "pymysql.connections.Connection[pymysql.cursors.Cursor]"
Session = Callable[[], AbstractContextManager[Execute]]
GONE = (pymysql.err.Error, psycopg.Error)
"""Exceptions of the drivers when the database has gone away."""

SHORT_SECONDS = 0.2  # that most transactions stay open after their INSERTs
LATE_SHARE = 0.05  # of the transactions: open for up to `longest`
ROLLED_BACK_SHARE = 0.1
BACK_FILLED_SHARE = 0.1
PAUSE_SECONDS = 0.1
RETRY_SECONDS = 0.2
ACTIONS, OUTCOMES = ["login", "logout", "export"], ["success", "failure"]
INSERT = "INSERT INTO audit_trail (created_at, action, outcome) VALUES (UTC_TIMESTAMP(6), %s, %s)"
NOW = {"mariadb": "UTC_TIMESTAMP(6)", "postgresql": "clock_timestamp()"}
_INSERT = "INSERT INTO audit_trail (created_at, action, outcome) VALUES ({now}, %s, %s)"
NEW_ID = {"mariadb": "SELECT LAST_INSERT_ID()", "postgresql": "SELECT lastval()"}
_INSERT_AT = "INSERT INTO audit_trail (created_at, action, outcome, id) VALUES ({now}, %s, %s, %s)"


class Writers:
    """Threads with a session each, which reconnect when the database goes away."""

    def __init__(
        self,
        session: Session,
        *,
        kind: str,
        longest: float = SHORT_SECONDS,
        sessions: int = 4,
        back_fills: bool = False,
    ) -> None:
        """Start them; late transactions stay open for longest at most, in seconds."""
        self._session = session
        self._new_id = NEW_ID[kind]
        self._insert, self._insert_at = (text.format(now=NOW[kind]) for text in (_INSERT, _INSERT_AT))
        self._longest = longest
        self._holes: deque[int] | None = deque(maxlen=100) if back_fills else None
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(seed,)) for seed in range(sessions)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Commit the open transactions, and stop writing."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._stop.is_set():
            try:
                with self._session() as execute:
                    while not self._stop.wait(dice.uniform(0, PAUSE_SECONDS)):
                        self._write(execute, dice)
            except GONE:
                self._stop.wait(RETRY_SECONDS)

    def _write(self, execute: Execute, dice: random.Random) -> None:
        if self._holes and dice.random() < BACK_FILLED_SHARE:
            execute(self._insert_at, (*_row(dice), self._holes.popleft()))
        elif dice.random() < 0.4:
            execute(self._insert, _row(dice))
        else:
            self._transact(execute, dice)

    def _transact(self, execute: Execute, dice: random.Random) -> None:
        execute("BEGIN")
        ids = []
        for _ in range(dice.randint(1, 20)):
            execute(self._insert, _row(dice))
            ids.append(execute(self._new_id)[0][0])
        is_late = dice.random() < LATE_SHARE
        self._stop.wait(dice.uniform(0, self._longest if is_late else min(SHORT_SECONDS, self._longest)))
        if dice.random() >= ROLLED_BACK_SHARE:
            execute("COMMIT")
            return
        execute("ROLLBACK")
        if self._holes is not None:
            self._holes.extend(ids)


def _row(dice: random.Random) -> tuple[str, str]:
    return dice.choice(ACTIONS), dice.choice(OUTCOMES)
