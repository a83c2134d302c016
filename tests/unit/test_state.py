"""The state file: what it refuses, and what survives."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders import NOW, job

from shipper.errors import ConfigError, ShipperError, StateBusy, StateCorrupt
from shipper.lock import holder
from shipper.model import MAX_ID, Cause, Key, Note, Position, Sent, Standing, Window
from shipper.schema import APPLICATION_ID, MIGRATIONS
from shipper.state import HISTORY_ROWS, State, standings

KEY = Key("events.a.count", NOW, 60)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give the path of a state that is not there yet."""
    return str(tmp_path / "shipper.db")


@pytest.fixture
def state(path: str) -> Iterator[State]:
    """Give a new state."""
    with State(path) as state:
        yield state


def record(state: State, after: int, upto: int, value: int | None = None, **unshown: int) -> None:
    """Record a window of the job `events`, with a total or without."""
    with state.recording("events", Window(after, upto)) as recording:
        recording.claim(KEY.path, ("a",))
        causes = {Cause(cause): rows for cause, rows in unshown.items()}
        recording.write({} if value is None else {KEY: value}, causes, NOW)


def test_watermark_table_reads_at_a_glance(state: State, path: str) -> None:
    """Any SQLite client tells an operator everything."""
    state.begin(job(), 5)
    record(state, 5, 9, 3)
    with closing(sqlite3.connect(path)) as connection:  # beside the process that holds it
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
    """What was recorded is there after the process has ended without a word, and nothing of an open record is."""
    program = f"""
import os
from builders import job
from shipper.model import Key, Window
from shipper.state import State
state = State({path!r})
state.begin(job(), 0)
for after in range(3):
    with state.recording("events", Window(after, after + 1)) as recording:
        recording.claim("events.a.count", ("a",))
        recording.write({{Key("events.a.count", 60, 60): after + 1}}, {{}}, None)
        if after == 2:
            os.kill(os.getpid(), 9)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, check=False)

    assert ended.returncode == -9
    with State(path) as state:
        assert state.captured("events") == 2
        assert state._connection.execute("SELECT value FROM total").fetchall() == [(2,)]


def test_file_is_private(state: State, path: str) -> None:
    """Nobody else reads the group values; whether somebody holds the state anybody may know."""
    state.begin(job(), 0)

    assert {file.name: oct(file.stat().st_mode & 0o777) for file in Path(path).parent.iterdir()} == {
        "shipper.db": "0o600",
        "shipper.db-wal": "0o600",
        "shipper.db-shm": "0o600",
        "shipper.db.lock": "0o644",
    }


def test_second_instance_refused(state: State, path: str) -> None:
    """A second writer is told who the first is; once that has gone it may have the state."""
    with pytest.raises(StateBusy, match=f"another shipper has it, process {os.getpid()}"):
        State(path)
    assert holder(path) == os.getpid()
    state.close()
    assert holder(path) is None
    with State(path):
        pass


def test_record_elsewhere_refused(state: State) -> None:
    """A window that does not begin at captured is not recorded, nor any part of it.

    Mutant: leave the condition on captured out.
    """
    state.begin(job(), 0)
    record(state, 0, 5, 1)
    with pytest.raises(StateCorrupt, match="captured is elsewhere"):
        record(state, 4, 8, 99)

    assert state.captured("events") == 5
    assert state._connection.execute("SELECT value FROM total").fetchall() == [(1,)]


def test_record_fails_midway(state: State) -> None:
    """An error inside a record takes all of it back, and the next one goes well."""
    state.begin(job(), 0)
    with pytest.raises(RuntimeError), state.recording("events", Window(0, 5)) as recording:
        recording.claim(KEY.path, ("a",))
        recording.write({KEY: 7}, {}, None)
        raise RuntimeError
    record(state, 0, 5, 1)

    assert state._connection.execute("SELECT value FROM total").fetchall() == [(1,)]


def test_ids_beyond_signed_integers(state: State) -> None:
    """Ids are compared as numbers, up to 2^64 - 1, though they are kept as text."""
    state.begin(job(), 9)
    record(state, 9, MAX_ID, 1)
    state.commit({"events": 10})
    state.commit({"events": MAX_ID})
    position = state.position("events")

    assert position is not None
    assert position.watermark == MAX_ID


def test_watermark_never_moves_back(state: State) -> None:
    """A commit of a lower id changes nothing. Mutant: compare as plain text."""
    state.begin(job(), 0)
    record(state, 0, 100, 1)
    state.commit({"events": 10})
    state.commit({"events": 9})
    position = state.position("events")

    assert position is not None
    assert position.watermark == 10


def test_watermark_never_passes_captured(state: State) -> None:
    """The table itself refuses a watermark beyond captured."""
    state.begin(job(), 5)

    with pytest.raises(StateCorrupt, match="CHECK"):
        state.commit({"events": 6})


@pytest.mark.parametrize("value", ["", "07", "-1", "1.5", "9e3", "abc", "1" * 21])
def test_only_canonical_ids(state: State, value: str) -> None:
    """An id is a decimal number without sign or leading zeros, whoever writes it."""
    state.begin(job(), 5)

    with pytest.raises(sqlite3.IntegrityError):
        state._connection.execute("UPDATE watermark SET value = ?, captured = ?", (value, value))


def test_prove_leaves_newer_changes(state: State) -> None:
    """A total that has changed since is not proven with its older revision. Mutant: no upper bound."""
    state.begin(job(), 0)
    record(state, 0, 5, 1)
    upto = state.note(0).upto
    record(state, 5, 9, 2)
    state.prove(after=0, upto=upto, step=60, oldest=0)

    assert [waiting.totals for waiting in state.note(0).waiting] == [1]


def test_prove_leaves_what_was_held(state: State) -> None:
    """A total too old to have been sent is not proven."""
    state.begin(job(), 0)
    record(state, 0, 5, 1)
    state.prove(after=0, upto=state.note(0).upto, step=60, oldest=NOW + 60)

    assert len(state.note(0).waiting) == 1


def test_path_has_one_owner(state: State) -> None:
    """A path stays with its first group."""
    state.begin(job(), 0)
    record(state, 0, 5, 1)
    with state.recording("events", Window(5, 6)) as recording:
        assert not recording.claim(KEY.path, (None,))
        assert recording.claim(KEY.path, ("a",))
        recording.write({}, {}, None)


def test_path_of_another_job(state: State) -> None:
    """A renamed job is not given hashed names: it is told who has its paths, and nothing of the window is recorded."""
    state.begin(job(), 0)
    record(state, 0, 5, 1)
    state.begin(job("renamed"), 0)
    with (
        pytest.raises(ConfigError, match=f"{KEY.path}: it belongs to job events"),
        state.recording("renamed", Window(0, 5)) as recording,
    ):
        recording.claim(KEY.path, ("a",))

    assert state.captured("renamed") == 0


class Slow(State):
    """A state that lets another thread in, if that can be, between a record's COMMIT and its new revision."""

    between: threading.Thread | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_revision" and self.between is not None:
            self.between.start()
            self.between.join(0.3)
        super().__setattr__(name, value)


def test_note_never_sees_half_a_record(path: str) -> None:
    """A note waits for a record's revision: captured and the totals that lead to it are seen together, or not at all.

    Mutant: count the revision after the mutex is given back.
    """
    notes: list[Note] = []
    with Slow(path) as state:
        state.begin(job(), 0)
        state.between = threading.Thread(target=lambda: notes.append(state.note(0)))
        record(state, 0, 5, 1)
        state.between.join()

    assert notes[0].captured == {"events": 5}
    assert len(notes[0].waiting) == 1


def test_sent_is_kept_once(state: State, path: str) -> None:
    """What was sent is given to the next process, and only to that one; revisions go on behind it."""
    state.begin(job(), 0)
    record(state, 0, 5, 1)
    kept = [Sent(0, 1, 0, 1000, 1060, 5), Sent(1, 7, -1, 1000, 1000, 5)]
    state.keep_sent(kept)
    state.close()
    with State(path) as again:
        assert again.take_sent() == kept
        assert again.take_sent() == []
        record(again, 5, 6, 2)
        assert again.note(7).upto == 8


def test_complete_to_the_minute(state: State) -> None:
    """An idle job's time goes on, a minute at a time."""
    state.begin(job(), 0)
    seen = []
    for seconds in (0, 30, 60, 61):
        state.complete("events", NOW + seconds)
        position = state.position("events")
        assert position is not None
        seen.append(position.complete_until)

    assert seen == ["2026-09-21T14:14:00Z"] * 2 + ["2026-09-21T14:15:00Z"] * 2


def test_history_is_bounded(state: State) -> None:
    """The history holds the newest commits only."""
    state.begin(job(), 0)
    record(state, 0, 20, 1)
    state._connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO history SELECT i, 'events', '1', '' FROM n",
        (HISTORY_ROWS + 50,),
    )
    state.commit({"events": 20})

    assert state._connection.execute("SELECT COUNT(*), MAX(value) FROM history").fetchone() == (HISTORY_ROWS, "20")


def test_standings_beside_the_writer(state: State, path: str) -> None:
    """The state is read while another process holds it, and after."""
    state.begin(job(), 0)
    record(state, 0, 5, 1, future=2)
    updated = standings(path)["events"].position.updated
    position = Position("app", "audit_trail", "id", 0, 5, "2026-09-21T14:14:00Z", updated)
    expected = {"events": Standing(position, 1, {"future": 2})}

    assert standings(path) == expected
    state.close()
    assert standings(path) == expected


def _foreign(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE persist (scriptname TEXT)")


def _newer(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def _damaged(path: str) -> None:
    Path(path).write_bytes(b"not a database, but long enough to be taken for one" * 100)


def _truncated(path: str) -> None:
    with State(path) as state:
        state.begin(job(), 5)
    file = Path(path)
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_foreign, "belongs to another program"),
        (_newer, f"version {len(MIGRATIONS) + 1}"),
        (_damaged, "not a database"),
        (_truncated, "malformed"),
    ],
)
def test_unusable_file_refused(path: str, spoil: Callable[[str], None], says: str) -> None:
    """A file that is not ours, newer or damaged is refused with a hint, for the writer and for readers, and stays."""
    spoil(path)
    before = Path(path).read_bytes()
    for call in (State, standings):
        with pytest.raises(StateCorrupt, match=says) as caught:
            call(path)
        assert caught.value.hint

    assert before == Path(path).read_bytes()
    assert holder(path) is None


def test_no_directory(tmp_path: Path) -> None:
    """A state in a directory that is not there is a mistake of the configuration."""
    with pytest.raises(ConfigError, match="No such file"):
        State(str(tmp_path / "missing/shipper.db"))
    with pytest.raises(ConfigError, match="no such file"):
        standings(str(tmp_path / "shipper.db"))


def test_full_disk(state: State) -> None:
    """When nothing more can be written the record fails as a whole, and goes well once there is room."""
    state.begin(job(), 0)
    record(state, 0, 1, 1)
    (pages,) = state._connection.execute("PRAGMA page_count").fetchone()
    state._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ShipperError, match="full"), state.recording("events", Window(1, 2)) as recording:
        for n in range(2000):
            recording.claim(f"events.x{n}.count", (str(n),))
        recording.write({}, {}, None)
    state._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    record(state, 1, 2, 2)

    assert state.captured("events") == 2
