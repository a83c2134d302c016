"""Sessions that write into the audit trail as an application does: overlapping, late, rolled back, into holes."""

import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import TypeAlias

import pymysql

Connection: TypeAlias = "pymysql.connections.Connection[pymysql.cursors.Cursor]"

SHORT_SECONDS = 0.2  # how long most transactions stay open after their INSERTs
LATE_SHARE = 0.05  # of the transactions: open for up to `longest`
ROLLED_BACK_SHARE = 0.1
BACK_FILLED_SHARE = 0.1
PAUSE_SECONDS = 0.1
RETRY_SECONDS = 0.2
ACTIONS, OUTCOMES = ["login", "logout", "export"], ["success", "failure"]
INSERT = "INSERT INTO audit_trail (created_at, action, outcome) VALUES (UTC_TIMESTAMP(6), %s, %s)"
INSERT_AT = "INSERT INTO audit_trail (created_at, action, outcome, id) VALUES (UTC_TIMESTAMP(6), %s, %s, %s)"


class Writers:
    """Threads with a session each, which begin anew when the database goes away."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        longest: float = SHORT_SECONDS,
        sessions: int = 4,
        back_fills: bool = False,
    ) -> None:
        """Start them; longest is how long the late transactions stay open at most, seconds."""
        self._connect = connect
        self._longest = longest
        self._holes: deque[int] | None = deque(maxlen=100) if back_fills else None
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(seed,)) for seed in range(sessions)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Commit what is open, and write no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._stop.is_set():
            try:
                with closing(self._connect()) as connection:
                    while not self._stop.wait(dice.uniform(0, PAUSE_SECONDS)):
                        self._write(connection, dice)
            except pymysql.err.Error:
                self._stop.wait(RETRY_SECONDS)

    def _write(self, connection: Connection, dice: random.Random) -> None:
        with connection.cursor() as cursor:
            if self._holes and dice.random() < BACK_FILLED_SHARE:
                cursor.execute(INSERT_AT, (*_row(dice), self._holes.popleft()))
            elif dice.random() < 0.4:
                cursor.execute(INSERT, _row(dice))
            else:
                self._transact(connection, cursor, dice)

    def _transact(self, connection: Connection, cursor: pymysql.cursors.Cursor, dice: random.Random) -> None:
        connection.begin()
        ids = []
        for _ in range(dice.randint(1, 20)):
            cursor.execute(INSERT, _row(dice))
            ids.append(cursor.lastrowid)
        is_late = dice.random() < LATE_SHARE
        self._stop.wait(dice.uniform(0, self._longest if is_late else min(SHORT_SECONDS, self._longest)))
        if dice.random() >= ROLLED_BACK_SHARE:
            connection.commit()
            return
        connection.rollback()
        if self._holes is not None:
            self._holes.extend(ids)


def _row(dice: random.Random) -> tuple[str, str]:
    return dice.choice(ACTIONS), dice.choice(OUTCOMES)
