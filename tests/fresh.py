"""Fresh processes, forked from one that has imported what takes long and is no part of shipper.

An import of all of it takes ten times as long as a command.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from multiprocessing.context import ForkServerContext
from multiprocessing.pool import Pool
from pathlib import Path

PRELOADED = (
    *("apscheduler.schedulers.background", "click", "graphyte", "hypothesis.stateful", "psycopg"),
    *("pydantic.json_schema", "pydantic.main", "pymysql", "pytest", "sqlalchemy", "sqlalchemy.dialects.mysql"),
    *("sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "sqlalchemy.ext.compiler", "sqlite3"),
    *("structlog", "tabulate", "tomllib", "whisper"),
)
TIMEOUT_SECONDS = 120.0


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


@contextmanager
def fresh_processes(number: int) -> Iterator[Pool]:
    """Give a pool that runs each task in a new process."""
    with _context().Pool(number, maxtasksperchild=1) as pool:
        yield pool


def run(module: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` to its end, with the present environment."""
    with tempfile.TemporaryDirectory() as name:
        output, errors = Path(name, "output"), Path(name, "errors")
        with closing(_context().Process(target=_main, args=(module, arguments, dict(os.environ), name))) as process:
            process.start()
            process.join(TIMEOUT_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
                raise subprocess.TimeoutExpired([module, *arguments], TIMEOUT_SECONDS, output.read_bytes())
            code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess([module, *arguments], code, output.read_text(), errors.read_text())


def _main(module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    assert "shipper" not in sys.modules
    for number, name in ((1, "output"), (2, "errors")):
        with Path(folder, name).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv[1:] = arguments
    sys.path.insert(0, str(Path.cwd()))  # as for -m
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing runs others only
