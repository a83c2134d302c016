"""One stage a test, and the table of all faults above pytest's last line."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from fault.score import Record, Score, table
from fault.stage import MakeStage, Stage
from servers import MariaDB

_SCORES = pytest.StashKey[list[Score]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag of the soak."""
    parser.addoption("--soak", type=float, default=0.0, metavar="MINUTES", help="how long faults strike at random")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if scores := config.stash.get(_SCORES, []):
        terminalreporter.section("faults")
        terminalreporter.write_line(table(scores))


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Record:
    """Give what adds a row to the table."""

    def add(score: Score) -> Score:
        pytestconfig.stash.setdefault(_SCORES, []).append(score)
        return score

    return add


@pytest.fixture
def make_stage(tmp_path: Path, mariadb: MariaDB) -> Iterator[MakeStage]:
    """Give what makes a stage, which ends with the test."""
    with ExitStack() as opened:

        def make(**options: Any) -> Stage:
            return opened.enter_context(closing(Stage(tmp_path, mariadb, **options)))

        yield make


@pytest.fixture
def stage(make_stage: MakeStage) -> Stage:
    """Give the usual stage."""
    return make_stage()
