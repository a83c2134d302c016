"""Reloads of the service."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import begin, job

from shipper.config.load import load
from shipper.core.errors import ConfigError, StateBusy
from shipper.runtime.pipeline import composed
from shipper.service.reload import Exchange, Reloader
from shipper.state.store import State

HEAD = """\
[state]
path = "{folder}/shipper.db"
[graphite]
retentions = "1m:1d"
[source.app]
url = "sqlite:///{folder}/app.db"
"""
JOB = '[job.{name}]\ntable = "audit_trail"\nid = "id"\nname = "{name}.{{measure}}"\n'


def test_reload_during_the_stop() -> None:
    """A reload that waited until the service stopped replaces nothing. Mutant: load the file."""
    nothing: Any = None
    reloader = Reloader(nothing, nothing, nothing, renewed=lambda: None)
    with reloader.lock:
        reloader.is_stopping = True

    with pytest.raises(StateBusy, match="shutting down"):
        reloader.reload()


def test_held_job_that_is_removed(tmp_path: Path) -> None:
    """A job that was held, and that a reload removes, is none any more. Mutant: keep its error."""
    config = tmp_path / "shipper.toml"
    head, first, second = (one.format(folder=tmp_path, name=name) for one, name in ((HEAD, ""), (JOB, "a"), (JOB, "b")))
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE audit_trail (id INTEGER PRIMARY KEY)")
    with State(str(tmp_path / "shipper.db")) as state:
        begin(state, job(name="b", table="another"))
    config.write_text(head + first + second)

    with composed(load(str(config))) as pipeline:
        with pytest.raises(ConfigError, match="another"), pipeline.locked("b"):
            pass
        config.write_text(head + first)
        Exchange(pipeline, load(str(config))).commit()

        with pytest.raises(ConfigError, match="no job 'b'"), pipeline.locked("b"):
            pass
