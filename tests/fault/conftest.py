"""One stage per test, and the table of all faults above pytest's last line."""

from pathlib import Path

import pytest
from fault.score import Record, Score, table

HERE = Path(__file__).parent
FAULT = "fault"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the soak test."""
    parser.addoption("--soak", type=float, default=0.0, metavar="SECONDS", help="how long faults strike at random")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Raise the timeouts of the soak test and of the tests that wait for it."""
    if seconds := config.getoption("--soak", default=0.0):
        for item in items:
            if item.path.parent == HERE:
                item.add_marker(pytest.mark.timeout(seconds + 900), append=False)  # before its own


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    reports = [one for found in terminalreporter.stats.values() for one in found if isinstance(one, pytest.TestReport)]
    properties = [one for report in reports if report.when == "call" for one in report.user_properties]
    if scores := [Score(*row) for name, row in properties if name == FAULT and isinstance(row, tuple)]:
        terminalreporter.section("faults")
        terminalreporter.write_line(table(scores))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Give the function that adds a row to the table."""

    def add(score: Score) -> Score:
        request.node.user_properties.append((FAULT, tuple(score)))
        return score

    return add
