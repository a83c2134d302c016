"""Imports of the commands."""

import subprocess
import sys

import pytest

from shipper.cli import about
from shipper.cli.commands import main
from shipper.core.errors import ConfigError, LeaseLost, NotRunning, ShipperError, StateBusy

_PACKAGES = """
import contextlib, sys
before = set(sys.modules)
from shipper.cli.commands import main
for words in (["--help"], ["admin", "--help"], ["reconcile", "--help"], ["version"], ["once", "--unknown"]):
    with contextlib.suppress(SystemExit):
        main(words)
names = {name.partition(".")[0] for name in sys.modules.keys() - before}
print(*sorted(names - sys.stdlib_module_names - {"shipper"}))
"""
_DRIVERS = """
import sys
import shipper.service.daemon
from shipper.source.dialects.databases import dialect_named
dialect_named(sys.argv[1])
print(*sorted(sys.modules.keys() & {"psycopg", "sqlite3"}))
"""


def test_help_imports_nothing_slow() -> None:
    """`--help`, `version` and usage errors are quick: a command imports what it needs when it runs.

    Mutant: cli/setup.py imports config/load.py at its top.
    """
    command = [sys.executable, "-c", _PACKAGES]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    assert "No such option" in answer.stderr
    assert answer.stdout.splitlines()[-1] == "click tabulate"  # `version` prints a table


@pytest.mark.parametrize(("name", "modules"), [("mariadb", "sqlite3"), ("postgresql", "psycopg sqlite3")])
def test_drivers_are_imported_when_a_source_needs_them(name: str, modules: str) -> None:
    """The service needs no memory for the drivers of other databases; SQLite keeps its state.

    Mutant: import all dialects at the top of databases.py.
    """
    command = [sys.executable, "-c", _DRIVERS, name]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    assert answer.stdout.strip() == modules


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LeaseLost("write the state: another shipper leads"), 75),
        (StateBusy("open state: busy"), 1),
        (ConfigError("load: wrong"), 78),
        (NotRunning("ask: no process listens"), 3),
    ],
)
def test_exit_codes(error: ShipperError, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of error has its exit code. Mutant: 1 for a lost lease."""

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(about.version, "callback", fails)
    with pytest.raises(SystemExit) as ended:
        main(["version"])

    assert ended.value.code == code
