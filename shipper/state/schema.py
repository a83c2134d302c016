"""The state file: its tables, migrations, and the translation of SQLite's errors.

Ids are TEXT: BIGINT UNSIGNED ends at 2^64-1, SQLite's integers at 2^63-1, and a bigger number in an INTEGER column
silently becomes a float. They are compared by (length, text), because as plain text '9' > '10'. Another table is a new
step of VERSIONS.
"""

import os
import sqlite3
import struct
import zlib
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import chain
from pathlib import Path

from shipper.core.errors import ConfigError, StateBusy, StateCorrupt
from shipper.state.access import enter

UNWRITABLE = "Free disk space; check that the state file is writable and no other program locks it."
_MALFORMED = (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, struct.error, zlib.error)
_SHOWN = 200  # characters of a damaged value
RESTORE = "Stop shipper, and restore the state from a backup: `shipper restore FILE`."
_SET_DATABASE = "Set `database` of [state] to the PostgreSQL that has the state"
NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
APPLICATION_ID = 0x53485052  # "SHPR": marks our SQLite files
WORKING_COPY = 0x53485057  # "SHPW": marks working copies of a state that is in a database
MOVED = 0x5348504D  # "SHPM": marks files of a state that was moved into a database, or is about to come from there

ID_ORDER = "ORDER BY length({0}), {0}"
_IS_ID = "({0} = '0' OR ({0} GLOB '[1-9]*' AND {0} NOT GLOB '*[^0-9]*' AND length({0}) <= 20))"

Statements = tuple[str, ...]

_TABLES: Statements = (
    f"""
    CREATE TABLE watermark ( -- offsets of each job: one row shows an operator how far it is
        job TEXT PRIMARY KEY,
        source TEXT NOT NULL,
        id_table TEXT NOT NULL,
        id_column TEXT NOT NULL,
        value TEXT NOT NULL CHECK {_IS_ID.format("value")}, -- the watermark: rows up to it are counted and confirmed
        captured TEXT NOT NULL CHECK {_IS_ID.format("captured")}, -- the read position: highest id looked at
        complete_until TEXT, -- source time up to which all rows are counted
        updated TEXT NOT NULL,
        CHECK ((length(value), value) <= (length(captured), captured))
    ) STRICT, WITHOUT ROWID""",
    f"""
    CREATE TABLE job ( -- progress of each job besides its offsets; times in epoch seconds
        job TEXT PRIMARY KEY REFERENCES watermark (job),
        definition_digest TEXT NOT NULL, -- digest of all that decides what its totals mean
        path_digest TEXT NOT NULL, -- digest of all that decides to which path and time a row adds
        time_digest TEXT NOT NULL, -- digest of all that decides its time
        zero_filled_until INTEGER NOT NULL, -- buckets that end by then are zero-filled
        not_before INTEGER NOT NULL, -- first complete bucket of a job without a time column
        recount_from INTEGER, -- slots from here on must be recounted
        low TEXT NOT NULL CHECK {_IS_ID.format("low")}, -- with lookback: rows up to this id are completed
        since INTEGER NOT NULL, -- slots from here on are complete, by the present definition
        begins INTEGER NOT NULL, -- rows for earlier slots are rejected as too late
        bucket INTEGER NOT NULL, -- longest bucket of its slots, in seconds
        multiple INTEGER NOT NULL -- least common multiple of all buckets, in seconds
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE series ( -- owner of each metric path
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,
        job TEXT NOT NULL,
        "group" TEXT NOT NULL, -- values of the `by` columns, as a JSON array
        measure TEXT NOT NULL, -- name of the measure
        kind TEXT NOT NULL, -- kind of the measure: count, sum, ...
        first_slot INTEGER, -- oldest bucket with rows
        last_slot INTEGER, -- newest bucket with rows
        is_made INTEGER NOT NULL DEFAULT 0 CHECK (is_made IN (0, 1)) -- whether a total was proven: Carbon has its file
    ) STRICT""",
    'CREATE INDEX series_group ON series (job, "group")',
    "CREATE INDEX series_new ON series (id) WHERE is_made = 0",
    """
    CREATE TABLE total ( -- value of each series in each slot, and the outbox
        slot INTEGER NOT NULL,
        step INTEGER NOT NULL,
        series INTEGER NOT NULL REFERENCES series (id),
        value ANY NOT NULL, -- an integer; as text if SQLite's integers cannot hold it
        revision INTEGER NOT NULL, -- number of the change that stored it
        changed INTEGER NOT NULL CHECK (changed IN (0, 1, 2)), -- 0 proven, 1 pending, 2 deferred to a later archive
        PRIMARY KEY (slot, step, series)
    ) STRICT, WITHOUT ROWID""",
    # with `changed`: else SQLite looks up each row of the table, and a scan takes eight times as long
    "CREATE INDEX total_changed ON total (revision, changed) WHERE changed = 1",
    "CREATE INDEX total_deferred ON total (step, slot, changed) WHERE changed = 2",
    """
    CREATE TABLE slot ( -- ids of the rows in each slot of a job
        job TEXT NOT NULL,
        slot INTEGER NOT NULL,
        step INTEGER NOT NULL,
        after TEXT NOT NULL, -- all ids are above this one
        upto TEXT NOT NULL, -- no id is above this one
        changed INTEGER NOT NULL, -- time of the last change, epoch seconds
        lacking INTEGER NOT NULL DEFAULT 0, -- rows that its indivisible measures lack since the last recount
        recounted INTEGER NOT NULL DEFAULT 0, -- time of that recount, or of a later attempt, epoch seconds
        PRIMARY KEY (job, slot, step)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX slot_lacking ON slot (job, slot) WHERE lacking > 0",
    """
    CREATE TABLE pruned ( -- times whose slots were pruned: [start, end); rows for them are rejected as too late
        job TEXT NOT NULL,
        start INTEGER NOT NULL,
        end INTEGER NOT NULL,
        PRIMARY KEY (job, start)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE rejected ( -- number of rejected rows, by reason: with them the sums equal the source
        job TEXT NOT NULL,
        reason TEXT NOT NULL,
        rows INTEGER NOT NULL,
        PRIMARY KEY (job, reason)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE rejected_in ( -- rejected rows that a recount may show later, by bucket
        job TEXT NOT NULL,
        reason TEXT NOT NULL,
        bucket INTEGER NOT NULL, -- the bucket that they would be in
        after TEXT NOT NULL, -- all their ids are above this one
        rows INTEGER NOT NULL,
        PRIMARY KEY (job, reason, bucket)
    ) STRICT, WITHOUT ROWID""",
    f"""
    CREATE TABLE position ( -- counted ids of each job up to captured: all in (floor, solid], and those of `counted`
        job TEXT PRIMARY KEY REFERENCES watermark (job),
        version INTEGER NOT NULL, -- increased by each recording
        floor TEXT NOT NULL CHECK {_IS_ID.format("floor")}, -- gaps at or below it are no longer asked for
        solid TEXT NOT NULL CHECK {_IS_ID.format("solid")}, -- no gap lies in (floor, solid]
        age INTEGER NOT NULL, -- sum of the times between looks, in seconds
        looked INTEGER NOT NULL, -- source time of the last look, epoch seconds
        marks TEXT NOT NULL, -- pairs of age and largest id, as JSON: how old a gap is
        late_rows INTEGER NOT NULL -- number of rows that came at or below captured
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE counted ( -- counted ids above solid, in segments of a bitmap
        job TEXT NOT NULL,
        start TEXT NOT NULL, -- number of the first word; a word has 64 ids
        words BLOB NOT NULL,
        PRIMARY KEY (job, start)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE settled ( -- number of counted ids in each range (after, upto] below the floor
        job TEXT NOT NULL,
        after TEXT NOT NULL,
        upto TEXT NOT NULL,
        rows INTEGER NOT NULL,
        at INTEGER NOT NULL, -- when the floor passed it, epoch seconds
        PRIMARY KEY (job, after)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE late ( -- late ids and the slot in which they were counted, of jobs without a time column
        number INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        slot INTEGER NOT NULL,
        words BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX late_job ON late (job, slot)",
    """
    CREATE TABLE minute ( -- what the table held in a minute, of jobs along a time
        job TEXT NOT NULL,
        start INTEGER NOT NULL, -- second of the time column at which it begins
        rows INTEGER NOT NULL, -- number of rows at the last look
        checksum TEXT NOT NULL, -- sum of their times
        held TEXT NOT NULL, -- bucket, group, rows, values and values left out, as JSON, of each group
        PRIMARY KEY (job, start)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE identity ( -- fingerprint of each job's table
        job TEXT PRIMARY KEY,
        server TEXT, -- the database server, if it tells its identity
        rows TEXT NOT NULL, -- newest rows up to captured: id and time, as JSON
        went_back INTEGER NOT NULL CHECK (went_back IN (0, 1)) -- whether it became a different table, or an older copy
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE replay ( -- replays to come, kept at an orderly shutdown; times in epoch seconds
        number INTEGER PRIMARY KEY,
        after INTEGER NOT NULL, -- of totals with a revision in (after, upto]
        upto INTEGER NOT NULL,
        stage INTEGER NOT NULL, -- number of replays done
        confirmed INTEGER NOT NULL, -- when Carbon confirmed them
        due INTEGER NOT NULL, -- when the next replay is due
        repeats INTEGER NOT NULL, -- number of extra replays, one a minute, while Carbon creates their files
        reads INTEGER NOT NULL -- whether they are read back instead of sent
    ) STRICT""",
    """
    CREATE TABLE history ( -- newest commits of watermarks after a delivery
        id INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        value TEXT NOT NULL, -- the watermark
        committed TEXT NOT NULL, -- time of the commit
        datapoints INTEGER NOT NULL -- number delivered since the previous commit
    ) STRICT""",
    """
    CREATE TABLE pause ( -- jobs that an operator paused
        job TEXT PRIMARY KEY,
        since INTEGER NOT NULL -- epoch seconds
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE audit ( -- result of each job's newest audit; times in epoch seconds
        job TEXT PRIMARY KEY,
        at INTEGER NOT NULL, -- when it ended
        requested INTEGER NOT NULL, -- number of slots
        compared INTEGER NOT NULL, -- number of slots
        different INTEGER NOT NULL, -- number of slots
        missing INTEGER NOT NULL, -- number of rows
        surplus INTEGER NOT NULL, -- number of rows
        start INTEGER, -- first slot that differs
        end INTEGER, -- end of the last slot that differs
        error TEXT, -- reason why nothing could be compared
        hint TEXT -- its remedy
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE setting ( -- values to keep by name: Carbon's address, the progress of backfills
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
)

VERSIONS: tuple[Statements, ...] = (_TABLES,)
"""Steps to version 1, from an empty file, and so on. Once released they are never edited: add one."""


def prepare(connection: sqlite3.Connection, path: str, *, application: int = APPLICATION_ID) -> None:
    """Make the connection durable, and migrate an empty or older file to the current version, in one transaction.

    Raises:
        StateCorrupt: the file is not ours, or a newer program wrote it.
    """
    _check(connection, path, {application})  # first, because a foreign file must stay as it is
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # take the missing steps, and note the version that they lead to
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for statement in chain.from_iterable(VERSIONS[version:]):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {application}")
        connection.execute(f"PRAGMA user_version = {len(VERSIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


@contextmanager
def reader(path: str) -> Iterator[sqlite3.Connection]:
    """Open the state read-only, beside the process that holds it.

    Raises:
        StateCorrupt: it is damaged, foreign or newer.
        ConfigError: there is no such file, or this user may not read it.
    """
    enter(path)
    file, step = Path(path).absolute(), f"read state {path}"
    if not os.access(file, os.R_OK, effective_ids=True):
        raise ConfigError(
            f"{step}: there is no such file, or this user may not read it",
            hint="Run the command as root or as the service's user. "
            "If the file does not exist, check [state] path; the service creates the file when it starts.",
        )
    # without a -wal file no process writes, and SQLite could not create one in a directory that is read-only for us
    mode = "mode=ro" if Path(f"{file}-wal").exists() else "mode=ro&immutable=1"
    uri = f"{file.as_uri()}?{mode}"
    with translated(step), decoded(step), closing(sqlite3.connect(uri, uri=True)) as connection:
        _check(connection, path, {APPLICATION_ID, WORKING_COPY})
        yield connection


@contextmanager
def translated(step: str) -> Iterator[None]:
    """Translate SQLite's errors into ours."""
    try:
        yield
    except (OverflowError, sqlite3.DataError) as error:  # of a number
        raise StateCorrupt(f"{step}: {error}", hint=RESTORE) from error
    except MemoryError as error:  # a source on SQLite has taken all that SQLite may use
        raise StateBusy(
            f"{step}: out of memory", hint="The next tick tries again; if you ran a command, repeat it."
        ) from error
    except sqlite3.OperationalError as error:
        raise StateBusy(f"{step}: {error}", hint=UNWRITABLE) from error
    except sqlite3.IntegrityError as error:
        raise StateCorrupt(
            f"{step}: {error}", hint="If the state was edited by hand, restore a backup; otherwise report a bug."
        ) from error
    except sqlite3.DatabaseError as error:
        raise StateCorrupt(
            f"{step}: {error}",
            hint=f"{RESTORE} Jobs with a time column then correct their totals.",
        ) from error


@contextmanager
def decoded(step: str) -> Iterator[None]:
    """Translate the errors of a block that only reads rows: this program never writes what causes them."""
    try:
        yield
    except _MALFORMED as error:
        raise StateCorrupt(f"{step}: unreadable value: {str(error)[:_SHOWN]}", hint=RESTORE) from error


@cache
def _definitions(versions: tuple[Statements, ...]) -> frozenset[str]:
    """Return the definitions of all tables and indexes after these steps, as SQLite keeps them."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in chain.from_iterable(versions):
            connection.execute(statement)
        return frozenset(sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def _check(connection: sqlite3.Connection, path: str, applications: Container[int]) -> None:
    """Reject a file that is not ours, or that a newer program wrote."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
    if application == WORKING_COPY and application not in applications:
        raise StateCorrupt(
            f"open state {path}: it is the working copy of a state in a database",
            hint=f"{_SET_DATABASE}. If no PostgreSQL has the state any more, remove the file.",
        )
    if application == MOVED:
        raise StateCorrupt(
            f"open state {path}: it was moved into a database, or its move from there was interrupted",
            hint=f"{_SET_DATABASE}. If a move was interrupted, repeat `shipper admin state move` with the same `--to`.",
        )
    if application not in applications and (application or version or tables):
        raise StateCorrupt(
            f"open state {path}: this SQLite file belongs to another program",
            hint="Correct [state] path: it must name shipper's own file; a missing file is created.",
        )
    if version > len(VERSIONS):
        raise StateCorrupt(
            f"open state {path}: it has version {version}, this program knows only {len(VERSIONS)}",
            hint="Run the newer shipper, or restore a backup that this older one made.",
        )
    found = set(connection.execute("SELECT type, sql FROM sqlite_schema"))
    is_changed = version == len(VERSIONS) and _definitions(VERSIONS) - {sql for _, sql in found}
    if is_changed or {kind for kind, _ in found} & {"view", "trigger"}:  # a view may have no end
        raise StateCorrupt(f"open state {path}: another program has changed its tables", hint=RESTORE)
