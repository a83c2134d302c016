"""Run shipper on clocks that run faster: `python tests/accelerated.py ORIGIN START FACTOR run --config FILE`.

ORIGIN is an instant of this machine's monotonic clock, and START is the time of the clocks then, in epoch seconds, so
that several processes share one time. The clocks and waits of Python are accelerated, and SQLite's 'now'. Waits for
sockets and locked files are real, because the peers are.

libfaketime 0.9.10 cannot do this: it does not know sem_clockwait, with which Python's locks wait with a timeout, so
that all threads would sleep in real time until an accelerated instant.
"""

import sqlite3
import sys
import threading
import time
from datetime import datetime, tzinfo
from typing import Any, NamedTuple, Self

from apscheduler.executors import base as executors
from apscheduler.schedulers import base as schedulers

_monotonic, _sleep, _wait, _connect = time.monotonic, time.sleep, threading.Condition.wait, sqlite3.connect

SHORTEST_SECONDS = 0.005  # real seconds; shorter waits would only burn processor time


class Clock(NamedTuple):
    """A clock that runs faster than the real one."""

    origin: float
    start: float
    factor: float

    @classmethod
    def starting(cls, start: float, factor: float) -> Self:
        """Make a clock that shows start now."""
        return cls(_monotonic(), start, factor)

    def now(self) -> float:
        """Return its time, in epoch seconds."""
        return self.start + (_monotonic() - self.origin) * self.factor

    def real(self, seconds: float) -> float:
        """Return how long a wait of this clock's seconds takes in real seconds."""
        return seconds if seconds <= 0 else max(seconds / self.factor, SHORTEST_SECONDS)


def accelerate(clock: Clock) -> None:
    """Make this process use a clock."""

    class Accelerated(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(clock.now(), tz)

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        return _wait(self, None if timeout is None else clock.real(timeout))

    def connect(*arguments: Any, **options: Any) -> Any:
        return _connect(*arguments, **options | {"factory": _Connection})

    _Cursor.clock = clock
    # the scheduler imports the clock by name, as APScheduler's modules do
    from shipper.runtime import clocks, scheduler  # noqa: PLC0415 - after the clock has changed
    from shipper.service import daemon  # noqa: PLC0415

    rest = clocks.Flag.wait

    def flag_wait(self: clocks.Flag, seconds: float, connection: Any = None) -> bool:
        return rest(self, clock.real(seconds), connection)

    for module in (executors, schedulers, scheduler):
        vars(module)["datetime"] = Accelerated
    changed = {
        time: {"time": clock.now, "monotonic": lambda: clock.now() - clock.start, "sleep": sleeper(clock)},
        threading.Condition: {"wait": wait},
        clocks.Flag: {"wait": flag_wait},
        sqlite3: {"connect": connect},
        sqlite3.dbapi2: {"connect": connect},  # SQLAlchemy's
    }
    # the two clocks are read one after the other, and a pause between them counts multiplied
    daemon.STEP_SECONDS *= clock.factor
    for owner, names in changed.items():
        for name, value in names.items():
            setattr(owner, name, value)


def sleeper(clock: Clock) -> Any:
    """Return a sleep in the seconds of a clock."""
    return lambda seconds: _sleep(clock.real(seconds))


class _Cursor(sqlite3.Cursor):
    """A cursor whose statements use the time of a clock; SQL functions in Python would be called for each row."""

    clock: Clock

    def execute(self, sql: str, *parameters: Any) -> Self:
        return super().execute(self._at(sql), *parameters)

    def executemany(self, sql: str, *parameters: Any) -> Self:
        return super().executemany(self._at(sql), *parameters)

    def _at(self, sql: str) -> str:
        now = f"{self.clock.now()}, 'unixepoch'"
        return sql.replace("'now'", now).replace("unixepoch()", f"unixepoch({now})")


class _Connection(sqlite3.Connection):
    """A connection in place of shipper's, too: how long a statement takes is real, and nothing has a limit here."""

    seconds = 0.0

    def is_late(self) -> bool:
        return False

    def text(self, value: bytes) -> str:
        return value.decode(errors="backslashreplace")

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, *arguments: Any) -> Any:
        return self.cursor().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.cursor().executemany(*arguments)


if __name__ == "__main__":
    accelerate(Clock(*map(float, sys.argv[1:4])))
    from shipper.cli.commands import main

    main(sys.argv[4:])
