"""The state file: its tables, how an older file becomes a current one, what its errors mean.

Ids are TEXT: BIGINT UNSIGNED ends at 2^64-1, SQLite's integers at 2^63-1, and a bigger number in an INTEGER column
silently becomes a float. They are compared by (length, text), because as plain text '9' > '10'.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shipper.core.errors import ConfigError, StateBusy, StateCorrupt

UNWRITABLE = "Is the disk full or read-only, or the file in use?"
NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
APPLICATION_ID = 0x53485052  # "SHPR": tells our file from any other SQLite file

ID_ORDER = "ORDER BY length({0}), {0}"
_IS_ID = "({0} = '0' OR ({0} GLOB '[1-9]*' AND {0} NOT GLOB '*[^0-9]*' AND length({0}) <= 20))"

Statements = tuple[str, ...]

SCHEMA: Statements = (
    f"""
    CREATE TABLE watermark ( -- how far each job has come: one row tells an operator everything
        job TEXT PRIMARY KEY,
        source TEXT NOT NULL,
        id_table TEXT NOT NULL,
        id_column TEXT NOT NULL,
        value TEXT NOT NULL CHECK {_IS_ID.format("value")}, -- rows up to this id are counted and delivered
        captured TEXT NOT NULL CHECK {_IS_ID.format("captured")}, -- rows up to this id are counted
        complete_until TEXT, -- the source's time up to which everything is captured
        updated TEXT NOT NULL,
        CHECK ((length(value), value) <= (length(captured), captured))
    ) STRICT, WITHOUT ROWID""",
    f"""
    CREATE TABLE job ( -- what a job goes on from, beside its watermark
        job TEXT PRIMARY KEY REFERENCES watermark (job),
        definition_digest TEXT NOT NULL, -- a digest of what it counts
        path_digest TEXT NOT NULL, -- and of where that goes
        zero_filled_until INTEGER NOT NULL, -- buckets that end by then have their zeros, epoch seconds
        not_before INTEGER NOT NULL, -- without a time column: its first whole bucket
        recount_from INTEGER, -- slots from here on are to be counted again
        low TEXT NOT NULL CHECK {_IS_ID.format("low")}, -- all rows up to this id are complete
        since INTEGER NOT NULL, -- slots from here on are whole: older ones may be half counted, or count something else
        begins INTEGER NOT NULL, -- rows for slots before it are too late
        bucket INTEGER NOT NULL -- how long the buckets are that its slots begin with, at most, seconds
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE series ( -- each metric path has one owner
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,
        job TEXT NOT NULL,
        "group" TEXT NOT NULL, -- the raw values as a JSON array
        measure TEXT NOT NULL,
        kind TEXT NOT NULL,
        first_slot INTEGER, -- the oldest and the newest bucket in which it had rows
        last_slot INTEGER,
        is_made INTEGER NOT NULL DEFAULT 0 CHECK (is_made IN (0, 1)) -- was one of its totals ever proven?
    ) STRICT""",
    'CREATE INDEX series_group ON series (job, "group")',
    "CREATE INDEX series_new ON series (id) WHERE is_made = 0",
    """
    CREATE TABLE total ( -- the running value of each slot, and the outbox: changed until it is proven
        slot INTEGER NOT NULL,
        step INTEGER NOT NULL,
        series INTEGER NOT NULL REFERENCES series (id),
        value ANY NOT NULL, -- an integer, or as text what an integer of SQLite cannot hold
        revision INTEGER NOT NULL,
        changed INTEGER NOT NULL CHECK (changed IN (0, 1, 2)), -- 0: proven; 2: waits until its archive receives it
        PRIMARY KEY (slot, step, series)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX total_changed ON total (revision) WHERE changed = 1",
    "CREATE INDEX total_deferred ON total (step, slot) WHERE changed = 2",
    """
    CREATE TABLE slot ( -- whose rows a slot holds, by job
        job TEXT NOT NULL,
        slot INTEGER NOT NULL,
        step INTEGER NOT NULL,
        after TEXT NOT NULL, -- their ids are above this one
        upto TEXT NOT NULL, -- and not above this one
        changed INTEGER NOT NULL, -- epoch seconds
        PRIMARY KEY (job, slot, step)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE pruned ( -- slots from start up to, not including, end are forgotten: a row for them is too late
        job TEXT NOT NULL,
        start INTEGER NOT NULL,
        end INTEGER NOT NULL,
        PRIMARY KEY (job, start)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE rejected ( -- rows that cannot be shown, by reason: with them the sums equal the source
        job TEXT NOT NULL,
        reason TEXT NOT NULL,
        rows INTEGER NOT NULL,
        PRIMARY KEY (job, reason)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE rejected_in ( -- of the counters: what may be shown one day, by the bucket in which it would be
        job TEXT NOT NULL,
        reason TEXT NOT NULL,
        bucket INTEGER NOT NULL,
        after TEXT NOT NULL, -- the ids of these rows are above this one
        rows INTEGER NOT NULL,
        PRIMARY KEY (job, reason, bucket)
    ) STRICT, WITHOUT ROWID""",
    f"""
    CREATE TABLE position ( -- which ids up to captured a job has counted: all in (floor, solid], and those of `counted`
        job TEXT PRIMARY KEY REFERENCES watermark (job),
        version INTEGER NOT NULL, -- raised by each record
        floor TEXT NOT NULL CHECK {_IS_ID.format("floor")}, -- at or below it no row is waited for
        solid TEXT NOT NULL CHECK {_IS_ID.format("solid")},
        age INTEGER NOT NULL, -- for how long it was looked at, seconds
        looked INTEGER NOT NULL, -- when that was last, by the source's clock, epoch seconds
        marks TEXT NOT NULL, -- when ids were given out: pairs of age and largest id, as JSON
        late_rows INTEGER NOT NULL -- how many rows appeared below captured, and were added
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE counted ( -- ids above solid, in segments
        job TEXT NOT NULL,
        start TEXT NOT NULL, -- the number of the first word; a word has 64 ids
        words BLOB NOT NULL,
        PRIMARY KEY (job, start)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE settled ( -- how many ids were counted in a range that the floor has passed
        job TEXT NOT NULL,
        after TEXT NOT NULL,
        upto TEXT NOT NULL,
        rows INTEGER NOT NULL,
        at INTEGER NOT NULL, -- epoch seconds
        PRIMARY KEY (job, after)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE late ( -- of jobs without a time column: which ids came late, and in which slot they were counted
        number INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        slot INTEGER NOT NULL,
        words BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX late_job ON late (job, slot)",
    """
    CREATE TABLE identity ( -- which server a source was, and the rows that stood at captured
        job TEXT PRIMARY KEY,
        server TEXT,
        rows TEXT NOT NULL, -- the newest up to captured: id and time, as JSON
        went_back INTEGER NOT NULL CHECK (went_back IN (0, 1)) -- was it found to be another table, or an older one?
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE replay ( -- at an orderly end: what was delivered, and when it is due to be sent again
        after INTEGER NOT NULL,
        upto INTEGER NOT NULL,
        stage INTEGER NOT NULL,
        confirmed INTEGER NOT NULL,
        due INTEGER NOT NULL,
        repeats INTEGER NOT NULL,
        reads INTEGER NOT NULL
    ) STRICT""",
    """
    CREATE TABLE history ( -- the newest commits that followed a delivery
        id INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        value TEXT NOT NULL,
        committed TEXT NOT NULL,
        datapoints INTEGER NOT NULL -- delivered for it since the one before
    ) STRICT""",
    """
    CREATE TABLE setting ( -- what the state was last used with
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
)
"""What makes an empty file one of version 1. Never edited once released: what comes later is a migration."""

MIGRATIONS: tuple[Statements, ...] = ()
"""The first takes a file of version 1 to version 2, and so on. Entries are never edited once released."""


def prepare(connection: sqlite3.Connection, path: str, migrations: tuple[Statements, ...] = MIGRATIONS) -> None:
    """Make the connection durable, and bring an empty or older file to the current version, in one transaction.

    Raises:
        StateCorrupt: the file is not ours, or a newer program wrote it.
    """
    versions = (SCHEMA, *migrations)
    _check(connection, path, len(versions))  # before anything is changed
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for statements in versions[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(versions)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


@contextmanager
def reader(path: str) -> Iterator[sqlite3.Connection]:
    """Open the state read-only, beside the process that holds it.

    Raises:
        StateCorrupt: it is damaged, foreign or newer.
        ConfigError: there is no such file, or it may not be read.
    """
    file = Path(path).absolute()
    if not os.access(file, os.R_OK):
        raise ConfigError(
            f"read state {path}: there is no such file, or this user may not read it",
            hint="`shipper run` makes it; [state] path says where.",
        )
    # without a -wal file nobody writes, and SQLite could not make one where we may only read
    mode = "mode=ro" if Path(f"{file}-wal").exists() else "mode=ro&immutable=1"
    with (
        translated(f"read state {path}"),
        closing(sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True)) as connection,
    ):
        _check(connection, path, 1 + len(MIGRATIONS))
        yield connection


@contextmanager
def translated(step: str) -> Iterator[None]:
    """QueueEntry SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StateBusy(f"{step}: {error}", hint=UNWRITABLE) from error
    except sqlite3.IntegrityError as error:
        raise StateCorrupt(f"{step}: {error}", hint="This is a bug, or somebody has edited the state.") from error
    except sqlite3.DatabaseError as error:
        raise StateCorrupt(
            f"{step}: {error}",
            hint="Restore the state from a backup; event-time jobs then come out right by themselves.",
        ) from error


def _check(connection: sqlite3.Connection, path: str, newest: int) -> None:
    """Refuse a file that is not ours, or that a newer program wrote."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StateCorrupt(
            f"open state {path}: this SQLite file belongs to another program",
            hint="Point [state] path at a file of shipper's own; a new one is made where none is.",
        )
    if version > newest:
        raise StateCorrupt(
            f"open state {path}: it has version {version}, this program knows {newest}",
            hint="Run the newer shipper again, or restore a backup made by this one.",
        )
