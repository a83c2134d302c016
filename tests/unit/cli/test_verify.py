"""The proof of a backfill, as operators read it."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper.cli.options import instant
from shipper.cli.verify import prove
from shipper.core.measures import Kind
from shipper.core.verify.reconcile import Comparison, Difference
from shipper.runtime import comparer
from shipper.runtime.comparer import Reconciled

CONFIG = """
[graphite]
retentions = "1m:30d"
[source.app]
url = "sqlite:////app.db"
[job.events]
table = "events"
id = "id"
name = "events.{measure}"
"""
SPAN = (1_764_000_000, 1_764_003_600)


@pytest.fixture
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_berlin")
def test_command_for_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that a backfill names is accepted as it is shown. Mutant: show its times in local time."""
    file = tmp_path / "shipper.toml"
    file.write_text(CONFIG)
    comparison = Comparison([], Counter(), 60, differences=[Difference(SPAN[0], 60, "events.count", 1, None, Kind.SUM)])
    monkeypatch.setattr(comparer, "reconcile", lambda *_, **__: [Reconciled("events", comparison)])
    prove(str(file), "events", SPAN)
    named = re.search(r"shipper reconcile events --from (\S+) --until (\S+) shows", capsys.readouterr().err)
    assert named is not None
    assert tuple(map(instant, named.groups())) == SPAN
