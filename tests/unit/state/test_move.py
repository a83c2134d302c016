"""Moves of a state between a file and a database, with a kill at each step."""

import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from builders import begin, captured, job
from state_databases import FakeServer, FakeStateDatabase
from typing_extensions import override

from shipper.core.errors import ConfigError, ShipperError, StateCorrupt
from shipper.state import move
from shipper.state.copies import restore_into
from shipper.state.move import into_database, into_file
from shipper.state.remote import working_copy
from shipper.state.store import State

SERIES = """
    INSERT INTO series (id, path, job, "group", measure, kind) VALUES (1, 'a', 'events', '[]', 'n', 'count')"""
PLACE = "web1:/state.db"
STARTS = (("database", "file", "elsewhere"), ("file", "elsewhere", "database", "file"), ())
"""Orders in which an operator starts services after a kill, before the command is repeated."""


class KilledError(BaseException):
    """The end of a process."""


class Killing(FakeStateDatabase):
    """A database whose process is killed before or after a write."""

    def __init__(self, server: FakeServer, kill: tuple[str, int] | None) -> None:
        super().__init__(server)
        self._kill, self._writes = kill, 0

    def _dies(self, when: str) -> None:
        if self._kill == (when, self._writes):
            raise KilledError

    @override
    def replace(self, rows: Any, version: int, move: Any = None) -> None:
        rows = list(rows)
        self._writes += 1
        self._dies("before")
        super().replace(rows, version, move)
        self._dies("after")

    @override
    def mark_moved(self, move: Any) -> None:
        self._writes += 1
        self._dies("before")
        super().mark_moved(move)
        self._dies("after")


@pytest.fixture
def server() -> FakeServer:
    """Make an empty database."""
    return FakeServer(lambda: 0.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give the path of a state whose job has counted five ids."""
    path = str(tmp_path / "shipper.db")
    with State(path) as state:
        begin(state, job(), 5)
    return path


def lead(server: FakeServer, kill: tuple[str, int] | None = None) -> Callable[[], Any]:
    """Return what leads in the database."""

    def take() -> Any:
        database = Killing(server, kill)
        assert database.try_to_lead()
        return database

    return take


def usable(path: str, server: FakeServer, starts: Sequence[str] = STARTS[0]) -> list[str]:
    """Start with each of these that exists; return whether the database has the state then, or the file, or both.

    Elsewhere is another machine, which has the database alone.
    """
    found = set()
    for start in starts:
        exists = {"file": Path(path).exists() and Path(path).stat().st_size, "elsewhere": server.rows}
        if not exists.get(start, True):
            continue
        where = f"{path}.elsewhere" if start == "elsewhere" else path
        with suppress(ShipperError), State(where, None if start == "file" else lead(server)()) as state:
            found |= {"file" if start == "file" else "database"} if captured(state, "events") == 5 else set()
        _end(server)
    return sorted(found)


def test_there_and_back(path: str, server: FakeServer) -> None:
    """The state is in the database, then in the file again, and never in both."""
    kept = into_database(path, lead(server), place=PLACE)
    with pytest.raises(StateCorrupt, match="it was moved into a database") as caught:
        State(kept)
    assert "repeat `shipper admin state move`" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="it was moved into a database already") as repeated:
        into_database(kept, lead(server), place=PLACE)
    assert "Start the service if " in str(repeated.value.hint)
    assert usable(path, server) == ["database"]

    into_file(path, lead(server), place=PLACE)
    with pytest.raises(ConfigError, match=f"it was moved to {PLACE}"):
        State(f"{path}.other", lead(server)())
    assert usable(path, server) == ["file"]
    with pytest.raises(ConfigError, match=f"it was moved to {PLACE}"):
        into_file(f"{path}.other", lead(server), place="web2:/state.db")


@pytest.mark.parametrize("kill", [(when, number) for number in (1, 2) for when in ("before", "after")])
def test_killed_on_the_way_there(kill: tuple[str, int], path: str, server: FakeServer) -> None:
    """After a kill beside each write of the database one of the two has the state, and a repetition moves it.

    Mutants: mark the file first; make the rows valid at once.
    """
    with suppress(KilledError):
        into_database(path, lead(server, kill), place=PLACE)
    _end(server)
    assert len(usable(path, server)) == 1
    _end(server)
    with suppress(ConfigError):  # it may be there already
        into_database(path, lead(server), place=PLACE)
    assert usable(path, server) == ["database"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_on_the_way_back(when: str, path: str, server: FakeServer) -> None:
    """After a kill beside the write of the database one of the two has the state."""
    into_database(path, lead(server), place=PLACE)
    with suppress(KilledError):
        into_file(path, lead(server, (when, 1)), place=PLACE)
    _end(server)
    assert usable(path, server) == (["database"] if when == "before" else ["file"])


@pytest.mark.parametrize("step", ["mark", "unmark", "set_aside"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_beside_a_change_of_the_file(
    step: str, when: str, path: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill beside each change of the file one of the two has the state, in both directions."""
    for run in (into_database, into_file):
        with monkeypatch.context() as patched:
            original = getattr(working_copy, step)

            def dies(*arguments: Any, original: Callable[..., Any] = original) -> Any:
                if when == "after":
                    original(*arguments)
                raise KilledError

            patched.setattr(working_copy, step, dies)
            with suppress(KilledError):
                run(path, lead(server), place=PLACE)
        _end(server)
        assert len(usable(path, server)) == 1, run
        _end(server)
        with suppress(ConfigError, StateCorrupt):
            run(path, lead(server), place=PLACE)
        _end(server)
        assert usable(path, server) == ["database" if run is into_database else "file"]
        _end(server)


@pytest.mark.parametrize("run", [into_database, into_file])
def test_killed_at_every_line(run: Callable[..., Any], tmp_path: Path) -> None:
    """After a kill at any line of a move one of the two has the state, whichever is started, and a repetition moves it.

    Mutant: make the rows valid before the file is marked.
    """
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, server = str(folder / "shipper.db"), FakeServer(lambda: 0.0)
        with State(path) as state:
            begin(state, job(), 5)
        if run is into_file:
            into_database(path, lead(server), place=PLACE)
        if not killed_at(number, lambda: run(path, lead(server), place=PLACE)):  # noqa: B023 - called at once
            break
        _end(server)
        starts = STARTS[number % len(STARTS)]  # many lines leave the same
        assert not starts or len(usable(path, server, starts)) == 1, number
        with suppress(ConfigError, StateCorrupt):  # it may be there already
            run(path, lead(server), place=PLACE)
        _end(server)
        assert usable(path, server) == ["database" if run is into_database else "file"], number

    assert number > 20


def killed_at(number: int, run: Callable[[], object]) -> bool:
    """Run a move until it reaches a line of its modules for the first time, by number; return whether it did."""
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in {move.__file__, working_copy.__file__}:
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == number:
                sys.settrace(None)
                raise KilledError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KilledError:
        return True
    finally:
        sys.settrace(before)
    return False


def test_interrupted_elsewhere(path: str, server: FakeServer, tmp_path: Path) -> None:
    """Another machine does not take rows whose move was interrupted before the file was marked."""
    with suppress(KilledError):
        into_database(path, lead(server, ("after", 1)), place=PLACE)
    _end(server)
    other = str(tmp_path / "other.db")
    with pytest.raises(ConfigError, match=f"its move from {PLACE} was interrupted"):
        State(other, lead(server)())
    _end(server)
    with State(other) as state:
        begin(state, job(), 9)
    with pytest.raises(ConfigError, match=f"its move from {PLACE} was interrupted"):
        into_database(other, lead(server), place="web2:/state.db")

    _end(server)
    into_database(path, lead(server), place=PLACE)
    assert usable(path, server) == ["database"]


def test_database_with_a_state(path: str, server: FakeServer, tmp_path: Path) -> None:
    """A state in the database is never overwritten, nor a state in the file. Mutant: look at neither."""
    other = str(tmp_path / "other.db")
    with State(other) as state:
        begin(state, job(), 9)
    into_database(path, lead(server), place=PLACE)
    with pytest.raises(ConfigError, match="has a state named fake already"):
        into_database(other, lead(server), place=PLACE)
    with pytest.raises(StateCorrupt, match="this file is itself a state"):
        into_file(other, lead(server), place=PLACE)
    with pytest.raises(ConfigError, match="there is no such file"):
        into_database(f"{path}.none", lead(FakeServer(lambda: 0.0)), place=PLACE)
    with pytest.raises(ConfigError, match="has no state named fake"):
        into_file(f"{path}.none", lead(FakeServer(lambda: 0.0)), place=PLACE)

    assert usable(path, server) == ["database"]


def test_restore_after_a_move(path: str, server: FakeServer, tmp_path: Path) -> None:
    """A copy does not take the place of a state that was moved to a file. Mutant: let it."""
    into_database(path, lead(server), place=PLACE)
    into_file(path, lead(server), place=PLACE)
    rows = dict(server.rows)
    with pytest.raises(ConfigError, match=f"it was moved to {PLACE}"):
        restore_into(path, str(tmp_path / "other.db"), lead(server), agree=lambda _: None)

    assert server.rows == rows
    assert server.move is not None


def test_state_in_the_database_replaced(path: str, server: FakeServer, tmp_path: Path) -> None:
    """The remedy for a state that is in the database already puts that of the file in its place.

    Mutant: name a copy, which `shipper backup` would make of the database.
    """
    other = str(tmp_path / "other.db")
    with State(other) as state:
        begin(state, job(), 9)
    into_database(path, lead(server), place=PLACE)
    with pytest.raises(ConfigError) as refused:
        into_database(other, lead(server), place=PLACE)
    assert f"`shipper restore {other}`, then move the file away" in (refused.value.hint or "")
    kept = restore_into(other, other, lead(server), agree=lambda _: None)
    Path(other).rename(tmp_path / "away.db")

    with closing(lead(server)()) as database, State(other, database) as state:
        assert captured(state, "events") == 9
    assert kept is not None
    with State(kept) as state:
        assert captured(state, "events") == 5


def test_late_slots_go_again(path: str, server: FakeServer) -> None:
    """Slots that a process may have sent late are marked in the file. Mutant: forget them."""
    with State(path) as state, state.writing("write") as connection:
        connection.execute(SERIES)
        connection.execute("INSERT INTO total VALUES (60, 60, 1, 5, 3, 0), (120, 60, 1, 5, 4, 0)")
    into_database(path, lead(server), place=PLACE)
    server.again[1] = 60
    into_file(path, lead(server), place=PLACE)

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT slot, revision, changed FROM total ORDER BY slot").fetchall()
    assert rows == [(60, 5, 1), (120, 4, 0)]


def _end(server: FakeServer) -> None:
    """End the session of a process that was killed."""
    server.holder = None
