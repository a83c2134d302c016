"""Every fault of the list, on real servers: nothing is lost or doubled, but the naive loop loses or doubles rows."""

from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
from fault.running import FAULTS, Running
from fault.score import Record, is_exact
from servers import MariaDB, PostgreSQL, has_mysql

for file in sorted(Path(__file__).parent.glob("*_faults.py")):
    if file.name != "test_faults.py":
        import_module(f"fault.{file.stem}")  # it adds its faults to the list
NAMES = sorted(FAULTS, key=lambda name: FAULTS[name].has_lease)
"""The faults, in the order in which they are played."""


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Start all chosen faults, the long ones first, then in the order of their tests."""
    chosen = [name for item in request.session.items if (name := item.name.removeprefix("test_fault[")[:-1]) in FAULTS]
    soak = request.config.getoption("--soak", default=0.0)
    if not has_mysql():
        chosen = [name for name in chosen if FAULTS[name].kind != "mysql"]
    servers: dict[str, MariaDB | PostgreSQL] = {"mariadb": mariadb}
    for kind in {FAULTS[name].kind for name in chosen if not FAULTS[name].has_own_server} - {"mariadb"}:
        servers[kind] = request.getfixturevalue(kind)
    with closing(Running(tmp_path_factory.mktemp("faults"), servers, chosen, soak_seconds=soak)) as made:
        yield made


@pytest.mark.timeout(1800)  # other faults may run before
@pytest.mark.parametrize("name", NAMES)
def test_fault(name: str, running: Running, record: Record, request: pytest.FixtureRequest) -> None:
    """Graphite equals the source at the end, bucket by bucket."""
    if FAULTS[name].kind == "mysql":
        request.getfixturevalue("mysql")  # skips the test where it cannot be had
    for score in map(record, running.scores(name)):
        if score.fault.startswith("naive"):
            assert score.lost > 0  # else the fault had no effect
        else:
            assert is_exact(score), score
