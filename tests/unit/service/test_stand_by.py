"""A machine that stands by: how often it asks, and when it stops."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shipper.core.errors import StateBusy
from shipper.core.retry import TAKE_OVER_MOST
from shipper.service.stand_by import TRY_SECONDS, StandBy


class Database:
    """A database that refuses some logins, then lets another machine lead for some tries."""

    def __init__(self, *, refusals: int, tries: int) -> None:
        self._answers = ["refused"] * refusals + ["led"] * tries

    def try_to_lead(self) -> bool:
        """Take the lease, or not."""
        answer = self._answers.pop(0) if self._answers else ""
        if answer == "refused":
            raise StateBusy("connect: password authentication failed")
        return not answer

    def leadership(self) -> None:
        """Know of nobody."""

    def standing_by(self) -> dict[str, str]:
        """Know of nobody."""
        return {}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the configuration of a machine without a status page."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    state, status = SimpleNamespace(path=tmp_path / "shipper.db"), SimpleNamespace(listen="off")
    return SimpleNamespace(state=state, status=status, digest="c", file="shipper.toml")


def test_login_is_refused(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that refuses is asked less and less often, and a leader at an even pace.

    Mutant: ask at one pace.
    """
    pauses: list[float] = []
    monkeypatch.setattr(signal, "sigtimedwait", lambda _signals, seconds: pauses.append(seconds))
    database: Any = Database(refusals=8, tries=3)
    assert StandBy(config, database).wait(set())

    refused, led = pauses[:8], pauses[8:]
    assert led == [TRY_SECONDS] * 3
    assert refused[0] < refused[2]
    assert all(TAKE_OVER_MOST / 2 <= pause <= TAKE_OVER_MOST for pause in refused[2:])
