"""Faults in parallel: each has a separate stage, and waits most of the time."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from fault.score import Score
from fault.stage import Stage
from servers import MariaDB, MySQL, PostgreSQL

AT_ONCE = 10  # for two cores: they wait most of the time
PAIRS_AT_ONCE = 3  # faults of two machines: a lease must not be lost because the machine has too much to do

SHARED_MEMORY = Path("/dev/shm")

Servers = Mapping[str, MariaDB | PostgreSQL]
"""The servers that faults share, by kind."""
Play = Callable[[Stage], list[Score]]


class Fault(NamedTuple):
    """A fault, and its stage."""

    play: Play
    has_own_server: bool
    kind: str
    is_long: bool
    in_memory: bool
    has_lease: bool
    options: dict[str, Any]


FAULTS: dict[str, Fault] = {}


def fault(
    *,
    name: str = "",
    has_own_server: bool = False,
    kind: str = "mariadb",
    is_long: bool = False,
    in_memory: bool = False,
    has_lease: bool = False,
    on_mysql: bool = False,
    **options: Any,
) -> Callable[[Play], Play]:
    """Add a fault to the list, once more if it is for MySQL, too; options are those of Stage."""

    def add(play: Play) -> Play:
        first = Fault(play, has_own_server, kind, is_long, in_memory, has_lease, options)
        called = name or play.__name__
        FAULTS[called] = first
        if on_mysql:
            FAULTS[f"{called}_on_mysql"] = first._replace(kind="mysql")
        return play

    return add


class Running:
    """The chosen faults, a few at a time, in the order of the tests; those of two machines after the others."""

    def __init__(self, folder: Path, servers: Servers, names: Iterable[str], *, soak_seconds: float) -> None:
        """Start at once."""
        self._executors = (ThreadPoolExecutor(AT_ONCE, "fault"), ThreadPoolExecutor(PAIRS_AT_ONCE, "pair"))
        self._scores: dict[str, Future[list[Score]]] = {}
        before: list[Future[list[Score]]] = []
        for name in sorted(names, key=lambda name: (FAULTS[name].has_lease, not FAULTS[name].is_long)):
            has_lease = FAULTS[name].has_lease
            later, arguments = before if has_lease else (), (name, folder / name, servers, soak_seconds)
            self._scores[name] = self._executors[has_lease].submit(_played, later, *arguments)
            before += [] if has_lease else [self._scores[name]]

    def scores(self, name: str) -> list[Score]:
        """Wait for a fault's end, and return its result."""
        return self._scores[name].result()

    def close(self) -> None:
        """Start no more faults, and wait for the rest."""
        for executor in self._executors:
            executor.shutdown(cancel_futures=True)


def _played(
    before: Sequence[Future[list[Score]]], name: str, folder: Path, servers: Servers, soak_seconds: float
) -> list[Score]:
    """Play a fault once others have ended."""
    wait(before)
    one = FAULTS[name]
    folder.mkdir()
    with ExitStack() as stack:
        if one.in_memory and SHARED_MEMORY.is_dir():  # durable writes cost nothing there
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix=folder.name)))
        server: MariaDB | PostgreSQL = servers.get(one.kind) or servers["mariadb"]
        if one.has_own_server and one.kind == "postgresql":
            server = PostgreSQL()
            stack.callback(server.close)
        elif one.has_own_server:
            (folder / one.kind).mkdir()
            server = (MySQL if one.kind == "mysql" else MariaDB)(folder / one.kind, ["--log-bin", "--server-id=1"])
            stack.callback(server.stop)
        made = Stage(folder, server, database=f"fault_{name}", soak_seconds=soak_seconds, **one.options)
        stage = stack.enter_context(closing(made))
        return one.play(stage)
