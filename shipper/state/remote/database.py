"""The state in PostgreSQL: the session that leads, and what it writes.

Strategy: the process whose session holds the advisory lock leads. The same session writes all rows, so the server
itself rejects what a process writes that leads no longer: a session that has ended commits nothing. Each commit is one
statement, and so one round trip; it also renews the lease. A session that is silent for longer than its lease is ended
by the server, or by another process that waits for the lock.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from shipper.core.errors import LeaseLost, StateBusy
from shipper.core.lease import BEATS, Lease
from shipper.state.remote.mirror import MirroredRow
from shipper.state.remote.session import (
    Leadership,
    Move,
    ReplicaSilent,
    allow,
    check_server,
    is_unconfirmed,
    leadership_in,
    message_of,
    move_of,
    remedy_of,
    row_of,
    set_path,
    standing_by_in,
    unusable_answers,
)

ROWS_A_SECOND = 2000  # that a slow server takes
NAME_BYTES = 63  # of an application: NAMEDATALEN
DIGEST_LETTERS = 8  # that tell two configurations apart
HAS_TRANSACTION_TIMEOUT = 170_000  # version of the server
LOAD_ROWS, LOAD_BYTES = 20_000, 8_000_000  # of one answer
LOST = "Nothing is lost: systemd restarts the service; if you ran a command, repeat it."

_LOCK = "hashtextextended('shipper ' || %(name)s, 0)"
_TABLES = """
    CREATE TABLE IF NOT EXISTS lease ( -- who leads; one row
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        version integer NOT NULL DEFAULT 0, -- of the rows; 0 without any
        term bigint NOT NULL DEFAULT 0, -- number of take-overs
        leader text, -- host of the process that leads, NULL after an orderly end
        pid integer, -- its session, with the next
        backend_start timestamptz,
        since timestamptz,
        beat timestamptz, -- when it was last heard of, by this server's clock
        writes bigint NOT NULL DEFAULT 0, -- number of beats and commits; another number: the tables were restored
        seconds double precision, -- length of its lease
        configuration text, -- digest of its configuration
        move text CHECK (move IN ('in', 'out')), -- 'in': the rows are not valid yet, 'out': not any more; else NULL
        move_token text, -- the same in the file that they come from, or went to
        move_place text -- host and path of that file
    );
    INSERT INTO lease DEFAULT VALUES ON CONFLICT DO NOTHING;
    CREATE TABLE IF NOT EXISTS state ( -- rows of the state's tables
        "table" text COLLATE "C",
        key text COLLATE "C",
        "values" text NOT NULL, -- SQL literals, as SQLite quotes them
        PRIMARY KEY ("table", key)
    );
    CREATE TABLE IF NOT EXISTS again ( -- slots that a process may have sent too late: the leader sends them once more
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        slot bigint NOT NULL
    )"""
_TAKE = """
    UPDATE lease SET term = term + 1, leader = %(host)s, pid = pg_backend_pid(), since = clock_timestamp(),
        backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
        beat = clock_timestamp(), seconds = %(lease)s, configuration = %(configuration)s
    RETURNING term, writes, version, move, move_token, move_place"""
# Only the session that the lease names, and only once it is silent.
_END_SILENT = f"""
    SELECT lease.leader, pg_terminate_backend(lease.pid) FROM lease
    JOIN pg_stat_activity AS session ON session.pid = lease.pid AND session.backend_start = lease.backend_start
    JOIN pg_locks AS held ON held.pid = lease.pid AND held.locktype = 'advisory' AND held.granted
    WHERE beat < clock_timestamp() - make_interval(secs => seconds)
        AND (held.classid::bigint << 32 | held.objid::bigint) = {_LOCK}"""
_BEAT = """
    WITH beaten AS (
        UPDATE lease SET beat = clock_timestamp(), writes = writes + 1, configuration = %(configuration)s
        WHERE term = %(term)s AND writes = %(writes)s RETURNING 1)
    SELECT (SELECT COUNT(*) FROM beaten), array_agg(DISTINCT slot), array_agg(number) FROM again"""
_ANNOUNCE = "UPDATE lease SET beat = clock_timestamp() + make_interval(secs => %(seconds)s) WHERE term = %(term)s"
# Nothing is written in another term, nor behind a restored copy. A beat that was announced stays: others see this one
# only at the commit.
_PUSH = """
    WITH led AS (
        UPDATE lease SET beat = GREATEST(beat, clock_timestamp()), writes = writes + 1
        WHERE term = %(term)s AND writes = %(writes)s RETURNING 1),
    gone AS (
        DELETE FROM state USING led, unnest(%(gone_tables)s::text[], %(gone_keys)s::text[]) AS one ("table", key)
        WHERE state."table" = one."table" AND state.key = one.key),
    put AS (
        INSERT INTO state
        SELECT one.* FROM led, unnest(%(tables)s::text[], %(keys)s::text[], %(values)s::text[]) AS one
        ON CONFLICT ("table", key) DO UPDATE SET "values" = excluded."values")
    SELECT COUNT(*) FROM led"""
# Rows in order, up to a number and to a size: some are words of ids, which may have 20 kB each.
_PAGE = """
    SELECT "table", key, "values" FROM (
        SELECT *, SUM(octet_length("values")) OVER (ORDER BY "table", key) - octet_length("values") AS before FROM (
            SELECT "table", key, "values" FROM state WHERE ("table", key) > (%(table)s, %(key)s)
            ORDER BY "table", key LIMIT %(rows)s) AS most) AS page
    WHERE before < %(size)s ORDER BY "table", key"""
_MOVE = """
    UPDATE lease SET move = %(move)s, move_token = %(token)s, move_place = %(place)s WHERE term = %(term)s"""


def clock() -> float:
    """Return the time of a clock that runs on while the machine is suspended, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StateDatabase:
    """The state in PostgreSQL, through one session of this process. For several threads."""

    def __init__(
        self,
        connect: Callable[[str], "psycopg.Connection[tuple[Any, ...]]"],
        *,
        label: str,
        name: str,
        lease: float,
        host: str,
        configuration: str,
    ) -> None:
        """Connect nowhere yet.

        connect opens a connection for the name of an application; name is that of the state, and of its schema; label
        describes the database to people.
        """
        self._label = label
        self.name, self.host = name, host
        self.lease = Lease(lease)
        self.term = 0
        """Number of the take-over by this process; 0 while it does not lead."""
        self.patience = 0.0
        """Until when, by `clock`, the answer to a long write is waited for."""
        self.loss: LeaseLost | None = None
        """Reason why this process may no longer lead."""
        self.version = 0
        """Version of the rows when this process began to lead; 0 without any."""
        self.move: Move | None = None
        """The move that made the rows invalid then; None if they were valid."""
        self.led_since = self.beaten_at = 0.0
        """When this process began to lead, and when it last renewed its lease, in epoch seconds."""
        self.others: Mapping[str, str] = {}
        """Hosts that stand by, as `standing_by` last returned them."""
        self.slots_again = 0
        """Slots that processes have asked for since this process leads."""
        self.pushed_seconds = 0.0
        """Duration of the last commit."""
        self._prefix = f"shipper {name} "
        self._login = ("", "")  # database and user
        self.configuration = configuration
        """Digest of the configuration that this process works with."""
        self._connect = connect
        self._mutex = threading.RLock()
        self._session: psycopg.Connection[tuple[Any, ...]] | None = None
        self._writes = 0  # of the lease, as the tables must say
        self._is_alone = False  # the server, without its stand-by

    def __str__(self) -> str:
        return self._label

    def try_to_lead(self) -> bool:
        """Take the lock if it is free; end the session of a leader that is silent for longer than its lease.

        Raises:
            StateBusy: the database does not answer, or cannot be used.
        """
        with self._mutex, self._answering("take the lease"):
            session = self._opened()
            names = {"name": self.name}
            (has_lock,) = row_of(session.execute(f"SELECT pg_try_advisory_lock({_LOCK})", names))
            if not has_lock:
                with suppress(psycopg.errors.UndefinedTable):  # the other is about to make them
                    session.execute(_END_SILENT, names)
                return False
            session.execute(_TABLES)
            values = {"host": self.host, "lease": self.lease.seconds, "configuration": self.configuration}
            asked_at = clock()  # the others wait for a lease from the beat that follows
            taken = row_of(session.execute(_TAKE, values))
            self._renew(asked_at)  # first: without it, this process does not lead
            self.term, self._writes, self.version, *move = taken
            self.move = move_of(*move)
            self.led_since = self.beaten_at = time.time()
            return True

    def leadership(self) -> Leadership | None:
        """Return who leads; None if no process ever did.

        Raises:
            StateBusy: the database does not answer, or cannot be used.
        """
        with self._mutex, self._answering("ask who leads"):
            return leadership_in(self._opened())

    def standing_by(self) -> Mapping[str, str]:
        """Return the hosts that stand by, each with the beginning of its configuration's digest."""
        step = "ask who stands by"
        with self._mutex, self._leading(step) if self.term else self._answering(step):
            self.others = standing_by_in(self._opened(), self.name)
            return self.others

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield all rows, by table: its name and the literals."""
        table, key = "", ""
        while True:
            with self._mutex, self._leading("load the state"):
                limits = {"table": table, "key": key, "rows": LOAD_ROWS, "size": LOAD_BYTES}
                page = self._opened().execute(_PAGE, limits).fetchall()
                rows = [(str(name), str(values)) for name, _, values in page]
            if not rows:
                return
            yield from rows
            table, key = page[-1][:2]

    def push(self, rows: Sequence[MirroredRow]) -> None:
        """Store what a commit has changed, durably.

        Raises:
            LeaseLost: it is unknown whether the rows are stored, or another process leads.
        """
        if not rows:
            return
        put = [row for row in rows if row.values is not None]
        gone = [row for row in rows if row.values is None]
        with self._mutex, self._leading("write the state"):
            values = {
                "term": self.term,
                "tables": _array([row.table for row in put]),
                "keys": _array([row.key for row in put]),
                "values": _array([row.values or "" for row in put]),
                "gone_tables": _array([row.table for row in gone]),
                "gone_keys": _array([row.key for row in gone]),
            }
            session = self._led()
            self._announce(session, len(rows) / ROWS_A_SECOND)
            asked_at = clock()
            self._require(row_of(session.execute(_PUSH, {**values, "writes": self._writes})) == (1,))
            self._writes += 1
            self._renew(asked_at)
            self.pushed_seconds = clock() - asked_at
            self._end_announced(session)

    def replace(self, rows: Iterable[MirroredRow], version: int, move: Move | None = None) -> None:
        """Store these rows instead of all that are there; with a move, they are not valid yet.

        Raises:
            LeaseLost: it is unknown whether they are stored, or another process leads.
        """
        with self._mutex, self._leading("write the state"):
            session = self._led()
            self._announce(session, 3600.0)
            with session.transaction():
                # not TRUNCATE: processes that read a snapshot would find nothing
                session.execute("SET LOCAL statement_timeout = 0; DELETE FROM state")
                with session.cursor().copy('COPY state ("table", key, "values") FROM STDIN') as copy:
                    for row in rows:
                        copy.write_row(row)
                values = {"version": version, "term": self.term}
                done = session.execute("UPDATE lease SET version = %(version)s WHERE term = %(term)s", values)
                self._require(done.rowcount == 1)
                session.execute(_MOVE, self._values_of(move))
            self._end_announced(session)

    def mark_moved(self, move: Move | None) -> None:
        """Mark the rows as invalid by a move, or as valid.

        Raises:
            LeaseLost: it is unknown whether they are marked, or another process leads.
        """
        with self._mutex, self._leading("write the state"):
            self._require(self._led().execute(_MOVE, self._values_of(move)).rowcount == 1)
            self.move = move

    def beat(self) -> tuple[list[int], list[int]]:
        """Renew the lease; return the slots that must be sent once more, and the numbers of these requests.

        Raises:
            LeaseLost: another process leads, or the database does not answer.
        """
        with self._mutex, self._leading("renew the lease"):
            asked_at = clock()
            values = {"term": self.term, "writes": self._writes, "configuration": self.configuration}
            beaten, slots, numbers = row_of(self._led().execute(_BEAT, values))
            self._require(beaten == 1)
            self._writes += 1
            self._renew(asked_at)
            self.beaten_at = time.time()
            return slots or [], numbers or []

    def forget_again(self, numbers: Sequence[int]) -> None:
        """Delete the requests with these numbers, whose slots are marked; one with a lower number may come later.

        Raises:
            LeaseLost: another process leads, or the database does not answer.
        """
        with self._mutex, self._leading("renew the lease"):
            self._led().execute("DELETE FROM again WHERE number = ANY(%s)", (list(numbers),))

    def ask_again(self, slots: Sequence[int]) -> None:
        """Ask the leader to send slots once more: this process may have sent their totals after its lease.

        Raises:
            StateBusy: the database does not answer.
        """
        with self._mutex, self._answering("record late slots"), suppress(psycopg.errors.UndefinedTable):
            self._opened().execute("INSERT INTO again (slot) SELECT unnest(%s::bigint[])", (list(slots),))

    def end_session(self) -> None:
        """End the session at once, and with it the right to lead; another may be opened."""
        with self._mutex:
            self.lease.end()
            self.term = 0
            self._close_session()

    def close(self) -> bool:
        """Stop to lead, so that another process may lead at once; return whether this one led until now."""
        with self._mutex:
            has_led = False
            if self.term and self._session is not None:
                with suppress(psycopg.Error):
                    statement = "UPDATE lease SET leader = NULL, pid = NULL WHERE term = %s"
                    has_led = self._session.execute(statement, (self.term,)).rowcount == 1 and not self._is_alone
            self.end_session()
            return has_led

    def _opened(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """Return the session; open one, unless this process leads: only the session that holds the lock may."""
        if self.term:
            return self._led()
        if self._session is not None:
            return self._session
        host = self.host[: NAME_BYTES - len(self._prefix) - DIGEST_LETTERS - 1]
        session = self._connect(f"{self._prefix}{host} {self.configuration[:DIGEST_LETTERS]}")
        try:
            session.autocommit = True
            self._prepare(session)
        except BaseException:
            session.close()
            raise
        self._session = session
        return session

    def _led(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """Return the session that holds the lock: no other may write."""
        if self._session is None or not self.term:
            raise LeaseLost("use the state: the PostgreSQL session has ended", hint=LOST)
        return self._session

    def _values_of(self, move: Move | None) -> dict[str, object]:
        direction, token, place = move or (None, None, None)
        return {"move": direction, "token": token, "place": place, "term": self.term}

    def _prepare(self, session: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """Set a session up; make the schema if there is none.

        Raises:
            StateCorrupt: it is not the session of one server process.
            ConfigError: the server is too old, or the database cannot store all characters.
        """
        self._login = (session.info.dbname, session.info.user)
        check_server(session)
        self._is_alone = False
        session.add_notice_handler(self._notice)
        milliseconds = round(self.lease.seconds * 1000)
        settings: dict[str, object] = {
            "synchronous_commit": "on",
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds,
            "idle_session_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            # a machine that dies during a long write, which the others wait for
            "tcp_keepalives_idle": math.ceil(self.lease.seconds),
            "tcp_keepalives_interval": 1,
            "tcp_keepalives_count": 3,
            "client_min_messages": "warning",
        }
        if session.info.server_version >= HAS_TRANSACTION_TIMEOUT:
            settings["transaction_timeout"] = 0  # long writes have other limits
        for name, value in settings.items():
            session.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        set_path(session, self.name)
        if row_of(session.execute("SELECT to_regnamespace(quote_ident(%s)) IS NULL", (self.name,)))[0]:
            session.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.name)))

    def _announce(self, session: "psycopg.Connection[tuple[Any, ...]]", seconds: float) -> None:
        """Let the others wait longer than a lease, if what follows takes long."""
        if seconds < self.lease.seconds / BEATS:
            return
        self._require(session.execute(_ANNOUNCE, {"seconds": seconds, "term": self.term}).rowcount == 1)
        self._set_timeout(session, seconds)
        self.patience = clock() + seconds + self.lease.seconds

    def _end_announced(self, session: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """Wait no longer than usual from now on, if more was announced: the lease may have ended meanwhile."""
        if self.patience:
            self.beat()
            self.patience = 0.0
            self._set_timeout(session, 0.0)

    def _set_timeout(self, session: "psycopg.Connection[tuple[Any, ...]]", seconds: float) -> None:
        """Let a statement take the length of the lease, and some seconds more."""
        allow(session, seconds + self.lease.seconds)
        session.execute(sql.SQL("SET statement_timeout = {}").format(round((seconds + self.lease.seconds) * 1000)))

    def _renew(self, asked_at: float) -> None:
        """Count the lease from a question whose answer is replicated."""
        self._require_replicated()
        self.lease.renew(asked_at)

    def _notice(self, notice: "psycopg.errors.Diagnostic") -> None:
        """Note that the server has written something alone."""
        self._is_alone |= is_unconfirmed(notice)

    def _require_replicated(self) -> None:
        """Raise if the server has written alone: its stand-by may replace it, and would not know of that."""
        if self._is_alone:
            self._is_alone = False
            raise ReplicaSilent("the server's synchronous replica does not answer")

    def _require(self, is_leader: bool) -> None:  # noqa: FBT001 - the only argument
        if not is_leader:
            raise LeaseLost("write the state: another shipper leads, or the state's tables were restored", hint=LOST)

    @contextmanager
    def _answering(self, step: str) -> Iterator[None]:
        """Translate errors of a session; it is opened again afterwards, unless it led."""
        try:
            with unusable_answers():
                yield
            self._require_replicated()
        except psycopg.Error as error:
            if self.term:
                self.lose()
            else:
                self.end_session()
            hint = remedy_of(error, self.name, *self._login)
            raise StateBusy(f"{step} in the state's database: {message_of(error)}", hint=hint) from error

    @contextmanager
    def _leading(self, step: str) -> Iterator[None]:
        """Translate errors of the session that leads, which are its end: whether a write was done is unknown."""
        try:
            with unusable_answers():
                yield
            self._require_replicated()
        except psycopg.Error as error:
            self.loss = LeaseLost(f"{step} in the state's database: {message_of(error)}", hint=LOST)
            self.lose()
            raise self.loss from error
        except LeaseLost as error:
            self.loss = self.loss or error
            self.lose()
            raise

    @property
    def is_lost(self) -> bool:
        """Whether another process may lead now."""
        now = clock()
        return not self.lease.left(now) and (self.loss is not None or now > self.patience)

    def lose(self, reason: LeaseLost | None = None) -> None:
        """End the lease; the session can no longer be used."""
        with self._mutex:  # the answer to another thread's write would renew the lease
            self.loss = self.loss or reason
            self.lease.end()
            self.patience = 0.0
            self._close_session()

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _array(texts: Sequence[str]) -> str:
    """Return texts as a literal of an array: psycopg looks at each by itself, which takes twenty times as long."""
    if not texts:
        return "{}"
    joined = "\0".join(texts)
    if joined.count("\0") >= len(texts):
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    quoted = joined.replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{quoted}"}}'
