"""One stage a test, and the table of all faults above pytest's last line."""

from pathlib import Path

import pytest
from fault.score import Record, Score, table

HERE = Path(__file__).parent
_SCORES = pytest.StashKey[list[Score]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag of the soak."""
    parser.addoption("--soak", type=float, default=0.0, metavar="MINUTES", help="how long faults strike at random")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the soak its time, and those that wait for it."""
    if minutes := config.getoption("--soak", default=0.0):
        for item in items:
            if item.path.parent == HERE:
                item.add_marker(pytest.mark.timeout(minutes * 60 + 900))


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
