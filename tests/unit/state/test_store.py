"""The state file: what survives, concurrent readers, commits, migrations and files that are rejected."""

import calendar
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from builders import NOW, captured, done, job
from builders import begin as begin_job

from shipper.core.delivery.outbox import Pending, Replay
from shipper.core.errors import ConfigError, ShipperError, StateBusy, StateCorrupt
from shipper.core.ledger import Name, Total
from shipper.core.measures import COUNT, Value
from shipper.core.model import MAX_ID, JobStatus, Key, Offsets, Rejection, RejectReason, Window
from shipper.state import schema
from shipper.state.database import GATHER_SECONDS
from shipper.state.lock import holder
from shipper.state.outbox import HISTORY_ROWS
from shipper.state.queries import Commit, StoredSlot, commits, job_statuses, stored_slots
from shipper.state.schema import APPLICATION_ID, VERSIONS
from shipper.state.store import State

KEY = Key("events.a.count", NOW, 60)
NAME = Name(KEY.path, ("a",), COUNT)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return the path of a state that does not exist yet."""
    return str(tmp_path / "shipper.db")


@pytest.fixture
def state(path: str) -> Iterator[State]:
    """Yield a new state."""
    with State(path) as state:
        yield state


def record(state: State, after: int, upto: int, value: int | None = None, **rejected: int) -> None:
    """Record a window of the job `events`, with or without a total."""
    with state.recording("events", Window(after, upto)) as recording:
        recording.claim([NAME])
        if value is not None:
            recording.put([Total(KEY, value)])
        reasons = {Rejection(RejectReason(reason)): rows for reason, rows in rejected.items()}
        recording.write(done(state, Window(after, upto), rejected=reasons, complete_until=NOW))


def begin(state: State, captured: int, name: str = "events") -> None:
    """Begin a job."""
    begin_job(state, job(name), captured)


def test_watermark_table_reads_at_a_glance(state: State, path: str) -> None:
    """An operator reads the offsets of a job with any SQLite client, in one row."""
    begin(state, 5)
    record(state, 5, 9, 3)
    with closing(sqlite3.connect(path)) as connection:  # while another process holds it
        connection.row_factory = sqlite3.Row
        columns = "job, source, id_table, id_column, value, captured"
        row = dict(connection.execute(f"SELECT {columns} FROM watermark").fetchone())

    assert row == {
        "job": "events",
        "source": "app",
        "id_table": "audit_trail",
        "id_column": "id",
        "value": "5",
        "captured": "9",
    }


def test_survives_kill(path: str) -> None:
    """After a kill all complete recordings are there, and nothing of the open one."""
    program = f"""
import os
from builders import begin, done, job
from shipper.core.ledger import Name, Total
from shipper.core.model import COUNT, Key, Window
from shipper.state.store import State
from shipper.state.database import GATHER_SECONDS
state = State({path!r})
begin(state, job())
for after in range(3):
    with state.recording("events", Window(after, after + 1)) as recording:
        recording.claim([Name("events.a.count", ("a",), COUNT)])
        recording.put([Total(Key("events.a.count", 60, 60), after + 1)])
        recording.write(done(state, Window(after, after + 1)))
        if after == 2:
            os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, check=False)

    assert ended.returncode == -9
    with State(path) as state:
        assert captured(state) == 2
        assert state._connection.execute("SELECT value FROM total").fetchall() == [(2,)]


def test_file_is_private(state: State, path: str) -> None:
    """Other users may not read group values, nor take the lock."""
    begin(state, 0)

    assert {file.name: oct(file.stat().st_mode & 0o777) for file in Path(path).parent.iterdir()} == {
        "shipper.db": "0o600",
        "shipper.db-wal": "0o600",
        "shipper.db-shm": "0o600",
        "shipper.db.lock": "0o600",
    }


def test_second_instance_is_rejected(state: State, path: str) -> None:
    """A second process gets an error that names the first; once that has closed the state it may open it."""
    with pytest.raises(StateBusy, match=f"process {os.getpid()} uses it already") as caught:
        State(path)
    assert "Wait until that process ends" in str(caught.value.hint)  # it may be a command
    assert holder(path) == (os.getpid(), None)
    state.close()
    assert holder(path) is None
    with State(path):
        pass


def test_window_that_does_not_follow(state: State) -> None:
    """A window that does not begin at captured is rejected; no part of it is stored.

    Mutant: leave the condition on captured out.
    """
    begin(state, 0)
    record(state, 0, 5, 1)
    with pytest.raises(StateCorrupt, match="the position has changed meanwhile"):
        record(state, 4, 8, 99)

    assert captured(state) == 5
    assert state._connection.execute("SELECT value FROM total").fetchall() == [(1,)]


def test_record_fails_midway(state: State) -> None:
    """An error inside a recording rolls all of it back, and the next one succeeds."""
    begin(state, 0)
    with pytest.raises(RuntimeError), state.recording("events", Window(0, 5)) as recording:
        recording.claim([NAME])
        recording.put([Total(KEY, 7)])
        recording.write(done(state, Window(0, 5)))
        raise RuntimeError
    record(state, 0, 5, 1)

    assert state._connection.execute("SELECT value FROM total").fetchall() == [(1,)]


def test_ids_beyond_signed_integers(state: State) -> None:
    """Ids are compared as numbers, up to 2^64 - 1, though they are stored as text."""
    begin(state, 9)
    record(state, 9, MAX_ID, 1)
    state.outbox.commit({"events": 10}, {})
    state.outbox.commit({"events": MAX_ID}, {})
    position = state.offsets("events")

    assert position is not None
    assert position.watermark == MAX_ID


def test_watermark_never_moves_back(state: State) -> None:
    """A commit of a lower id changes nothing. Mutant: compare as plain text."""
    begin(state, 0)
    record(state, 0, 100, 1)
    state.outbox.commit({"events": 10}, {})
    state.outbox.commit({"events": 9}, {})
    position = state.offsets("events")

    assert position is not None
    assert position.watermark == 10


def test_watermark_never_passes_captured(state: State) -> None:
    """A watermark never moves beyond captured, which a reset may set back; a CHECK of the table rejects it, too."""
    begin(state, 5)
    state.outbox.commit({"events": 6}, {})

    assert state._connection.execute("SELECT value FROM watermark").fetchone() == ("5",)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        state._connection.execute("UPDATE watermark SET value = '6'")


@pytest.mark.parametrize("value", ["", "07", "-1", "1.5", "9e3", "abc", "1" * 21])
def test_only_canonical_ids(state: State, value: str) -> None:
    """The table rejects ids with a sign, leading zeros, or other text than decimal digits."""
    begin(state, 5)

    with pytest.raises(sqlite3.IntegrityError):
        state._connection.execute("UPDATE watermark SET value = ?, captured = ?", (value, value))


def test_prove_leaves_newer_changes(state: State) -> None:
    """A total that has changed again is not proven by its older revision. Mutant: no upper bound."""
    begin(state, 0)
    record(state, 0, 5, 1)
    upto = state.outbox.pending(0).upto
    record(state, 5, 9, 2)
    state.outbox.prove(after=0, upto=upto)

    assert [waiting.totals for waiting in state.outbox.pending(0).waiting] == [1]


def test_path_has_one_owner(state: State) -> None:
    """A path stays with its first group."""
    begin(state, 0)
    record(state, 0, 5, 1)
    others = [NAME._replace(group=(None,))]
    twice = [Name("events.b", (group,), COUNT) for group in ("b", "c")]
    with state.recording("events", Window(5, 6)) as recording:
        assert recording.adopt([*others, NAME, *twice]) == [*others, *twice]
        assert recording.claim([*others, NAME, *twice]) == [twice[0], NAME]
        assert recording.adopt(twice) == [twice[1]]
        assert recording.groups([("a",), ("b",), ("c",)]) == (2, {("a",), ("b",)})
        recording.write(done(state, Window(5, 6)))


def test_undone_claim(state: State) -> None:
    """A claim that was rolled back leaves the cache: the next claim makes the row. Mutant: keep it in the cache."""
    begin(state, 0)
    with pytest.raises(RuntimeError), state.recording("events", Window(0, 5)) as recording:
        recording.claim([NAME])
        recording.see(NOW, [NAME.path])
        raise RuntimeError
    record(state, 0, 5, 1)

    assert state._connection.execute("SELECT path, first_slot FROM series").fetchall() == [(NAME.path, None)]


def test_path_of_another_job(state: State) -> None:
    """A job whose paths belong to another job gets an error that names it, not hashed names; nothing is recorded."""
    begin(state, 0)
    record(state, 0, 5, 1)
    begin(state, 0, "renamed")
    with (
        pytest.raises(ConfigError, match=f"series {KEY.path} belongs to job events already"),
        state.recording("renamed", Window(0, 5)) as recording,
    ):
        recording.claim([NAME])

    assert captured(state, "renamed") == 0


def begun_and_recorded(state: State) -> list[str]:
    """Begin and record two jobs; return the COMMIT statements."""
    traced: list[str] = []
    state._connection.set_trace_callback(traced.append)
    for name in ("events", "others"):
        begin(state, 0, name)
        with state.recording(name, Window(0, 5)) as recording:
            recording.claim([Name(f"{name}.a", ("a",), COUNT)])
            recording.put([Total(Key(f"{name}.a", NOW, 60), 7)])
            recording.write(done(state, Window(0, 5), name))
    state._connection.set_trace_callback(None)
    return [statement for statement in traced if statement == "COMMIT"]


def test_delivered_at(state: State) -> None:
    """The status has the newest commit of each job; None before its first. Mutants: any job's; the oldest."""
    begun_and_recorded(state)
    for upto, at in ((3, "2026-09-21T00:01:00Z"), (5, "2026-09-21T00:02:00Z")):
        state.outbox.commit({"events": upto}, {})
        state._connection.execute("UPDATE history SET committed = ? WHERE id = (SELECT MAX(id) FROM history)", (at,))

    found = {name: status.delivered_at for name, status in job_statuses(state.path).items()}
    assert found == {"events": calendar.timegm((2026, 9, 21, 0, 2, 0)), "others": None}


def test_gathered_is_one_commit(state: State, path: str) -> None:
    """Captures of one block share one commit, at its end. Mutants: commit each by itself; never commit."""
    assert len(begun_and_recorded(state)) == 4
    with closing(State(f"{path}.other")) as other:
        with other.gathering():
            assert begun_and_recorded(other) == []
            assert job_statuses(other.path) == {}
        assert set(job_statuses(other.path)) == {"events", "others"}


def test_gathered_waits_briefly(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long block commits before its end, GATHER_SECONDS after its first capture. Mutant: wait for the end."""
    with state.gathering():
        begin(state, 0)
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + GATHER_SECONDS)
        record(state, 0, 5, 1)

        assert job_statuses(state.path)["events"].offsets.captured == 5


def test_gathered_is_durable_before_it_is_noted(state: State, path: str) -> None:
    """A note of the outbox, or another write, commits gathered captures first. Mutant: note them uncommitted."""
    with state.gathering():
        begin(state, 0)
        record(state, 0, 5, 1)
        assert job_statuses(path) == {}
        state.outbox.pending(0)
        assert job_statuses(path)["events"].offsets.captured == 5
        record(state, 5, 6, 2)
        state.outbox.commit({}, {})

        assert job_statuses(path)["events"].offsets.captured == 6


def test_gathered_fails_alone(state: State, path: str) -> None:
    """A failing capture leaves the other gathered captures alone. Mutant: roll all of them back."""
    with state.gathering():
        begin(state, 0)
        record(state, 0, 5, 1)
        with pytest.raises(StateCorrupt):
            record(state, 0, 6, 2)
        with pytest.raises(RuntimeError), state.recording("events", Window(5, 6)):
            raise RuntimeError

    assert job_statuses(path)["events"].offsets.captured == 5


def test_gathered_cannot_be_committed(state: State) -> None:
    """A failed commit undoes all gathered captures; they succeed later. Mutant: leave the transaction open."""
    begin(state, 0)
    with pytest.raises(StateCorrupt, match="FOREIGN KEY"), state.gathering():
        record(state, 0, 5, 1)
        state._connection.execute("PRAGMA defer_foreign_keys = ON")
        state._connection.execute("INSERT INTO total VALUES (60, 60, 999, 1, 1, 1)")

    assert captured(state) == 0
    record(state, 0, 5, 1)
    assert captured(state) == 5


def test_gathered_is_undone_by_others(state: State) -> None:
    """A block fails, too, if a failed commit of another caller undid its captures. Mutant: take them for committed."""
    begin(state, 0)
    with pytest.raises(StateBusy, match="the write that this job shares with others failed"), state.gathering():
        record(state, 0, 5, 1)
        state._connection.execute("PRAGMA defer_foreign_keys = ON")
        state._connection.execute("INSERT INTO total VALUES (60, 60, 999, 1, 1, 1)")
        with pytest.raises(StateCorrupt):
            state.outbox.pending(0)

    assert captured(state) == 0


class Slow(State):
    """A state that lets another thread in, if the mutex allows it, between a recording's COMMIT and its revision."""

    between: threading.Thread | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name == "revision" and self.between is not None:
            self.between.start()
            self.between.join(0.3)
        super().__setattr__(name, value)


def test_note_never_sees_half_a_record(path: str) -> None:
    """A note waits for a recording's revision: it sees captured together with the totals up to it, or neither.

    Mutant: count the revision after the mutex is released.
    """
    notes: list[Pending] = []
    with Slow(path) as state:
        begin(state, 0)
        state.between = threading.Thread(target=lambda: notes.append(state.outbox.pending(0)))
        record(state, 0, 5, 1)
        state.between.join()

    assert notes[0].captured == {"events": 5}
    assert len(notes[0].waiting) == 1


def test_replays_are_taken_once(state: State, path: str) -> None:
    """Only the next process gets the kept replays; its revisions continue above theirs."""
    begin(state, 0)
    record(state, 0, 5, 1)
    replays = [Replay(0, 1, 0, 1000, 1060), Replay(1, 7, -1, 1000, 1000)]
    state.outbox.keep_replays(replays)
    state.close()
    with State(path) as again:
        assert again.outbox.take_replays() == replays
        assert again.outbox.take_replays() == []
        record(again, 5, 6, 2)
        assert again.outbox.pending(7).upto == 8


def test_history_is_bounded(state: State) -> None:
    """The history keeps the newest commits only."""
    begin(state, 0)
    record(state, 0, 20, 1)
    state._connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO history (id, job, value, committed, datapoints) SELECT i, 'events', '1', '', 0 FROM n",
        (HISTORY_ROWS + 50,),
    )
    state.outbox.commit({"events": 20}, {"events": 7})

    assert state._connection.execute("SELECT COUNT(*), MAX(value), SUM(datapoints) FROM history").fetchone() == (
        HISTORY_ROWS,
        "20",
        7,
    )


def test_job_statuses_beside_the_writer(state: State, path: str) -> None:
    """Another process may read the state while it is open, and afterwards."""
    begin(state, 0)
    record(state, 0, 5, 1, future=2)
    updated = job_statuses(path)["events"].offsets.updated
    position = Offsets("app", "audit_trail", "id", 0, 5, "2026-09-21T14:14:00Z", updated)
    expected = JobStatus(position, 1, {"future": 2}, waiting=1)

    assert job_statuses(path) == {"events": expected}
    state.outbox.keep_replays(
        [Replay(0, state.outbox.pending(0).upto, 0, NOW, NOW)]
    )  # an orderly shutdown: all was confirmed
    assert job_statuses(path) == {"events": expected._replace(waiting=0)}
    state.close()
    assert job_statuses(path) == {"events": expected._replace(waiting=0)}


def test_trouble_of_the_state(path: str) -> None:
    """A full disk is remembered with its error until a write succeeds. Mutants: remember nothing; for ever."""
    with State(path) as state:
        begin(state, 0)
        (pages,) = state._connection.execute("PRAGMA page_count").fetchone()
        state._connection.execute(f"PRAGMA max_page_count = {pages}")
        for _ in range(2):
            with pytest.raises(StateBusy, match="disk is full"):
                state.remember("much", "x" * 1_000_000)
        full, written_at = state.trouble, state.written_at
        state._connection.execute("PRAGMA max_page_count = 1000000")
        state.remember("much", "x" * 1_000_000)

        assert full is not None
        assert (str(full.error), full.failures) == ("keep a setting: database or disk is full", 2)
        assert state.trouble is None
        assert state.written_at > written_at


def test_confirmed_totals_do_not_wait_after_a_kill(path: str) -> None:
    """What was confirmed does not count as waiting after a kill, and new totals do.

    Mutants: no `confirmed` in the status; the revisions of a new process begin below it.
    """
    with State(path) as state:
        begin(state, 0)
        record(state, 0, 5, 1)
        state.outbox.commit({"events": 5}, {"events": 1}, confirmed=state.revision)
        state.outbox.prove(after=0, upto=state.revision)
    with State(path) as state:
        record(state, 5, 9, 2)
        assert job_statuses(path)["events"].waiting == 1
        state.outbox.commit({"events": 9}, {"events": 1}, confirmed=state.revision)
    assert job_statuses(path)["events"].waiting == 0


def test_history_beside_the_writer(state: State, path: str) -> None:
    """Commits around a time have their distance in ids; slots of any length are found that touch a span."""
    begin(state, MAX_ID - 9)
    begin(state, 1, "others")
    record(state, MAX_ID - 9, MAX_ID, 3)
    for after, datapoints in ((9, 0), (6, 2), (2, 1)):
        state.outbox.commit({"events": MAX_ID - after + 1, "others": 1}, {"events": datapoints})
    newest, *_ = reversed(commits(path, "events", at=2**62, until=2, beyond=0))
    times = "UPDATE history SET committed = strftime('%Y-%m-%dT%H:%M:%SZ', 1790000000 + id * 100, 'unixepoch')"
    state._connection.execute(times)
    history = commits(path, "events", at=1_790_000_200, until=5, beyond=5)

    assert (newest.watermark, newest.ids, newest.datapoints) == (MAX_ID - 1, 4, 1)
    assert history == [
        Commit(1_790_000_100, MAX_ID - 8, None, 0),
        Commit(1_790_000_200, MAX_ID - 5, 3, 2),
        Commit(1_790_000_300, MAX_ID - 1, 4, 1),
    ]
    assert commits(path, "events", at=1_790_000_250, until=1, beyond=1) == history[1:]
    (slot,) = stored_slots(path, "events", start=NOW - 1, end=NOW, longest=3600)
    assert slot == StoredSlot(NOW, 60, 1, 3, 1, slot.changed)
    assert stored_slots(path, "events", start=NOW + 59, end=NOW + 99, longest=3600) == [slot]
    assert stored_slots(path, "events", start=NOW + 60, end=NOW + 99, longest=3600) == []
    assert stored_slots(path, "events", start=NOW - 9, end=NOW - 1, longest=3600) == []


def _foreign(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE persist (scriptname TEXT)")


def _newer(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(VERSIONS) + 1}")


def _damaged(path: str) -> None:
    Path(path).write_bytes(b"not a database, but long enough to be taken for one" * 100)


def _truncated(path: str) -> None:
    with State(path) as state:
        begin(state, 5)
    file = Path(path)
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_foreign, "belongs to another program"),
        (_newer, f"version {len(VERSIONS) + 1}"),
        (_damaged, "not a database"),
        (_truncated, "malformed"),
    ],
)
def test_unusable_file_is_rejected(path: str, spoil: Callable[[str], None], says: str) -> None:
    """Writer and readers reject a foreign, newer or damaged file with a hint, and leave it unchanged."""
    spoil(path)
    before = Path(path).read_bytes()
    for call in (State, job_statuses):
        with pytest.raises(StateCorrupt, match=says) as caught:
            call(path)
        assert caught.value.hint

    assert before == Path(path).read_bytes()
    assert holder(path) is None


def _link(path: str) -> None:
    Path(path).symlink_to("elsewhere")


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [(os.mkfifo, "a FIFO"), (os.mkdir, "a directory"), (_link, "a symbolic link")],
)
def test_no_file(path: str, suffix: str, spoil: Callable[[str], None], says: str) -> None:
    """Writer and readers reject at once what is no file, with its name; a FIFO would let them wait for ever."""
    spoil(path + suffix)
    for call in (State, job_statuses, holder):
        with pytest.raises(ConfigError, match=f"{path}{suffix} is {says}") as caught:
            call(path)
        assert caught.value.hint


@pytest.mark.parametrize("text", ["", "x", "\xff", "9" * 5000, "1\n\0", "-5\n/control.sock"])
def test_lock_with_any_text(state: State, path: str, text: str) -> None:
    """Whatever the lock file says, a process that has it is known to have it."""
    Path(f"{path}.lock").write_bytes(text.encode("latin-1"))

    assert holder(path) is not None
    with pytest.raises(StateBusy, match="uses it already"):
        State(path)


def test_no_directory(tmp_path: Path) -> None:
    """A state in a directory that does not exist is a configuration error."""
    with pytest.raises(ConfigError, match="No such file"):
        State(str(tmp_path / "missing/shipper.db"))
    with pytest.raises(ConfigError, match="no such file"):
        job_statuses(str(tmp_path / "shipper.db"))


def test_full_disk(state: State) -> None:
    """On a full disk a recording fails completely, and succeeds once there is space."""
    begin(state, 0)
    record(state, 0, 1, 1)
    (pages,) = state._connection.execute("PRAGMA page_count").fetchone()
    state._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ShipperError, match="full"), state.recording("events", Window(1, 2)) as recording:
        recording.claim([Name(f"events.x{n}.count", (str(n),), COUNT) for n in range(2000)])
        recording.write(done(state, Window(1, 2)))
    state._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    record(state, 1, 2, 2)

    assert captured(state) == 2


def test_merge_adds_to_the_coarse_total(state: State) -> None:
    """Finer totals are added to the coarse one; those of other series stay. Mutant: overwrite the coarse total."""
    begin(state, 0)
    keys = [Key("a", NOW, 60), Key("a", NOW + 60, 60), Key("a", NOW, 3600), Key("b", NOW, 60)]
    with state.recording("events", Window(0, 5)) as recording:
        recording.claim([Name(path, (path,), COUNT) for path in ("a", "b")])
        recording.put(Total(key, number, is_due=key.path == "a") for number, key in enumerate(keys, start=1))
        recording.write(done(state, Window(0, 5)))
    state.outbox.merge(NOW, 60, (NOW, 3600))

    query = "SELECT path, slot, step, value FROM total JOIN series ON id = series ORDER BY path"
    assert state._connection.execute(query).fetchall() == [("a", NOW, 3600, 6), ("b", NOW, 60, 4)]


@pytest.mark.parametrize(
    "value", [0, -5, 2**63 - 1, -(2**63), 2**63, -(2**64), Decimal("0.1"), Decimal("12345678901234567890.5")]
)
def test_values_are_exact(state: State, value: Value) -> None:
    """A total of any length is stored exactly. Mutant: let SQLite choose the type."""
    begin(state, 0)
    with state.recording("events", Window(0, 5)) as recording:
        recording.claim([NAME])
        recording.put([Total(KEY, value)])
        recording.write(done(state, Window(0, 5)))
    (changed,) = state.outbox.changed(KEY.slot, KEY.step, after=0, upto=1, beyond=0, limit=9)

    assert changed.value == value
    assert type(changed.value) is type(value)


def test_empty_file_becomes_current(path: str) -> None:
    """A new file gets version 1 and our application id; a current file is left alone. Mutant: make the tables again."""
    for _ in range(2):
        State(path).close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (1,)
            assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


MARK = ("CREATE TABLE mark (step TEXT) STRICT", "INSERT INTO mark VALUES ('2')")
MARK_AGAIN = ("INSERT INTO mark VALUES ('3')",)


def prepared(connection: sqlite3.Connection, path: str, *later: tuple[str, ...]) -> None:
    """Prepare a file as a program with these steps after version 1 does."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(schema, "VERSIONS", (VERSIONS[0], *later))
        schema.prepare(connection, path)


@pytest.mark.parametrize(
    ("steps", "version", "marks"),
    [
        ([()], 1, None),
        ([(MARK,)], 2, ["2"]),  # an empty file takes each step, too, so that its tables equal those of a migrated file
        ([(MARK, MARK_AGAIN)], 3, ["2", "3"]),
        ([(), (MARK,)], 2, ["2"]),
        ([(), (MARK, MARK_AGAIN)], 3, ["2", "3"]),
        ([(), (MARK,), (MARK, MARK_AGAIN)], 3, ["2", "3"]),
        ([(MARK,), (MARK,)], 2, ["2"]),
    ],
)
def test_migrations(path: str, steps: list[tuple[tuple[str, ...], ...]], version: int, marks: list[str] | None) -> None:
    """A file of any version takes each missing step once, in order, and keeps its rows.

    Mutants: begin a step too early or too late; leave the version as it was.
    """
    for migrations in steps:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            prepared(connection, path, *migrations)
            connection.execute("INSERT OR IGNORE INTO setting (name, value) VALUES ('carbon', 'first')")

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        assert connection.execute("SELECT value FROM setting").fetchall() == [("first",)]
        if marks is not None:
            assert [step for (step,) in connection.execute("SELECT step FROM mark")] == marks


def test_newer_version_is_rejected(path: str) -> None:
    """A program rejects a file of a program with one more step, and changes nothing. Mutant: accept one more step."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepared(connection, path, MARK)
        with pytest.raises(StateCorrupt, match="it has version 2, this program knows only 1"):
            prepared(connection, path)

        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_failed_migration_leaves_the_file(path: str) -> None:
    """A step that fails halfway is rolled back. Mutant: commit each statement."""
    State(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            prepared(connection, path, (*MARK, "INSERT INTO missing VALUES (1)"))
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'mark'").fetchone() == (0,)
        prepared(connection, path, MARK)
        assert connection.execute("SELECT step FROM mark").fetchall() == [("2",)]
