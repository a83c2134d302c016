"""Imports of the commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

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
from shipper.source.dialects.by_name import dialect_named
dialect_named(sys.argv[1])
print(*sorted(sys.modules.keys() & {"psycopg", "sqlite3"}))
"""
_ONCE = """
import sys
import shipper.cli.commands, shipper.config.load, shipper.service.once
rarely = {"apscheduler", "difflib", "shipper.core.verify.reconcile", "shipper.status.report"}
print(*sorted(sys.modules.keys() & (rarely | {"spy"})))
"""
_STATUS = """
import contextlib, io, sys
import shipper.cli.commands
from reports import report
from shipper.service.control import open_control
from shipper.state.lock import announce, lock
folder = sys.argv[1]
held, asked, path = lock(f"{folder}/shipper.db"), [], f"{folder}/control.sock"
control = open_control(path, {"status": lambda values, _: asked.append(values) or report().document()})
announce(held, path)
before = set(sys.modules)
for words in ([], ["-o", "json", "logins"]):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
        shipper.cli.commands.main(["status", "--config", f"{folder}/shipper.toml", *words])
    assert "healthy" in shown.getvalue()
control.close()
print(asked, *sorted({name.partition(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names))
"""


def test_status_of_a_service_is_quick(tmp_path: Path) -> None:
    """The status of a service that runs needs no check of its file, no package, and the rows of minutes in JSON only.

    Mutant: cli/service.py loads the file first.
    """
    (tmp_path / "shipper.toml").write_text(f'[state]\npath = "{tmp_path}/shipper.db"\n[job.broken]\n')
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _STATUS, str(tmp_path)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)

    table, json = {"jobs": [], "with_totals": False}, {"jobs": ["logins"], "with_totals": True}
    assert answer.stdout.splitlines() == [f"{[table, json]} shipper"]


def test_help_imports_nothing_slow() -> None:
    """`--help`, `version` and usage errors are quick: a command imports what it needs when it runs.

    Mutant: cli/setup.py imports config/load.py at its top.
    """
    command = [sys.executable, "-c", _PACKAGES]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    assert "No such option" in answer.stderr
    assert answer.stdout.splitlines()[-1] == "click"


def test_once_imports_what_it_needs(tmp_path: Path) -> None:
    """A pass imports nothing for errors, reports, comparisons or the service, and no plugin of pydantic.

    Mutants: import status/report.py at the top of runtime/endpoints.py; let pydantic look for plugins.
    """
    metadata = tmp_path / "spy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pydantic]\nspy = spy\n")
    (tmp_path / "spy.py").write_text(
        "def new_schema_validator(*_: object) -> tuple[None, ...]: return (None, None, None)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}

    answer = subprocess.run(
        [sys.executable, "-c", _ONCE],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert answer.stdout.split() == []


@pytest.mark.parametrize("command", ["history", "reconcile", "backfill", "admin seek"])
def test_help_shows_how_to_write_a_time(command: str) -> None:
    """`--help` of a command that takes a time shows the forms of times. Mutant: leave them to the error."""
    shown = CliRunner().invoke(main, [*command.split(), "--help"]).output

    assert "TIME is 06:15, '2026-11-23 06:15', 2026-11-23T06:15Z, now" in " ".join(shown.split())


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
