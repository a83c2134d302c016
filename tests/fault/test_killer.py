"""Shipper is killed once at every line that it runs, enumerated and not sampled."""

import json
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

KILLER = str(Path(__file__).with_name("killer.py"))
SHARED_MEMORY = "/dev/shm"
FEWEST_LINES = 400
DATABASE = "killed"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a directory where durable writes cost nothing."""
    place = SHARED_MEMORY if Path(SHARED_MEMORY).is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as made:
        yield Path(made)


@pytest.mark.timeout(600)
def test_killed_at_every_line(folder: Path, mariadb: MariaDB, record: Record) -> None:
    """Wherever it is killed, the next start is a normal start.

    Mutant: captured and totals in two transactions.
    """
    with closing(Stage(folder, mariadb, database=DATABASE)) as stage:
        command = [sys.executable, KILLER, str(stage.app.config), str(mariadb.port), DATABASE]
        with (folder / "killer.log").open("wb") as log:
            ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, check=False)
        assert ended.returncode == 0, (folder / "killer.log").read_text()[-4000:]
        report = json.loads(ended.stdout)
        stage.app.start()
        note = f"{report['lines']} lines of code, {report['survived']} not run again"
        score = record(stage.finish("shipper: kill -9 at every line", report["kills"], note))

    assert is_exact(score)
    assert report["lines"] > FEWEST_LINES
