"""A rogue in the place of the PostgreSQL that keeps the state: each use of it ends soon, with an error of its own."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from harness import wait_for
from hostile.rogue import Rogue, impersonating, passing
from hostile.rogue_postgresql import TO_STATEMENTS
from servers import PostgreSQL

from shipper.core.errors import ShipperError
from shipper.runtime import postgresql as runtime
from shipper.source.access import Access
from shipper.state.remote import reader
from shipper.state.remote.database import StateDatabase
from shipper.state.remote.mirror import MirroredRow
from shipper.state.remote.reader import StateReader

USES: dict[str, Callable[[StateDatabase], object]] = {
    "WITH led": lambda leader: leader.push([MirroredRow("setting", "'a'", "'a', 'b'")]),
    "WITH beaten": lambda leader: leader.beat(),
    '"values" FROM state WHERE': lambda leader: list(leader.rows()),
}
"""What a leader does, by the beginning of its statement."""
BELIEVED = {("WITH led", "one column"), ('"values" FROM state WHERE', "no rows")}
"""Answers that the server may give."""
MOST_MIB = 150


@pytest.fixture
def rogue(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rogue]:
    """Run one in front of a database, which is not waited for longer than two seconds."""
    postgresql.make_database("states")
    monkeypatch.setattr(runtime, "LOCK_SECONDS", 1)
    monkeypatch.setattr(runtime, "GRACE_SECONDS", 1)
    monkeypatch.setattr(reader, "READ_SECONDS", 1)
    with closing(Rogue(passing(postgresql.port))) as rogue:
        yield rogue


def database(rogue: Rogue) -> StateDatabase:
    """Return the state as a leader uses it."""
    connect = runtime.connector(access(rogue))
    return StateDatabase(connect, label="states", name="shipper", lease=60, host="one", configuration="c")


def access(rogue: Rogue) -> Access:
    """Return the way through a rogue."""
    return Access(sa.make_url(f"postgresql+psycopg://root@127.0.0.1:{rogue.port}/states"), 1)


def memory(name: str) -> int:
    """Return a figure of this process's memory, in KiB."""
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TO_STATEMENTS)
def test_answers(name: str, rogue: Rogue, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """Neither a leader, nor who stands by, nor a command waits for an answer, keeps all of it, or believes it.

    Mutants: connect as psycopg does; no limit for COPY.
    """
    treat = TO_STATEMENTS[name]
    with closing(database(rogue)) as leader:
        wait_for(leader.try_to_lead, "the lease")
        commands = StateReader(runtime.connector(access(rogue)), label="states", name="shipper")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, to which other tests may have led
        before = memory("VmRSS")
        rogue.become(impersonating(postgresql.port, treat, at=b"pg_backend_pid()"))
        with pytest.raises(ShipperError):
            commands.leadership()
        with closing(database(rogue)) as other, pytest.raises(ShipperError):
            other.try_to_lead()
        rogue.become(impersonating(postgresql.port, treat, at=b"COPY (SELECT"))
        with pytest.raises(ShipperError):
            commands.copy(str(tmp_path / "copy.db"))

    for at, use in USES.items():
        if (at, name) in BELIEVED:
            continue
        rogue.become(impersonating(postgresql.port, treat, at=at.encode()))
        with closing(database(rogue)) as leader:
            wait_for(leader.try_to_lead, "the lease")
            with pytest.raises(ShipperError):
                use(leader)
    assert memory("VmHWM") - before < MOST_MIB * 1024
