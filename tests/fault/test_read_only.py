"""A state that is read-only."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fault.score import Record, is_exact
from fault.stage import Stage
from servers import MariaDB

NOBODY = """
import os, sys, pymysql, sqlalchemy.dialects.mysql.pymysql, shipper.service.daemon, shipper.cli.commands
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
sys.argv[0] = "shipper"
shipper.cli.commands.main()
"""
"""Root may write everything, and becomes user nobody after the imports, which nobody may not be able to read."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a directory that others may read; user nobody may not enter pytest's directories."""
    made = Path(tempfile.mkdtemp(prefix="shipper-fault-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("closed", ["all", "file"])
def test_read_only(folder: Path, mariadb: MariaDB, record: Record, closed: str) -> None:
    """The error is logged with a hint and no traceback; once the state may be written, nothing is missing.

    Mutant, where only the file is read-only: let SQLite's errors through.
    """
    with closing(Stage(folder, mariadb, database="closed")) as stage:
        state, lock = folder / "shipper.db", folder / "shipper.db.lock"
        stage.insert(3)
        assert stage.app.call("once").returncode == 0
        stage.insert(2)
        _close(folder, state, lock, is_root=os.getuid() == 0, closed=closed)
        command = [sys.executable, "-c", NOBODY, "once", "--config", str(stage.app.config)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        folder.chmod(0o755)
        state.chmod(0o600)
        lock.chmod(0o644)
        assert ended.returncode in {1, 78}
        assert "error: open state" in ended.stderr
        assert "hint: " in ended.stderr
        assert "Traceback" not in ended.stderr
        stage.app.start()

        assert is_exact(record(stage.finish(f"state: read-only, {closed}", 1)))


def _close(folder: Path, state: Path, lock: Path, *, is_root: bool, closed: str) -> None:
    """Make the state alone read-only, or the lock and the directory as well, for the program's user."""
    state.chmod(0o444)
    if closed == "all":
        lock.chmod(0o444)
        folder.chmod(0o555)
    elif is_root:
        lock.chmod(0o666)
        folder.chmod(0o777)
