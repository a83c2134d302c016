"""The fakes keep the contracts of the real ends."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import points
from contract import GraphiteContract, SinkContract, SourceContract
from fakes import FakeCarbon, FakeSource, FakeWeb, WhisperCarbon

from shipper.core.model import Archive


class TestFakeSource(SourceContract):
    """The fake table is a source."""

    @pytest.fixture
    def table(self) -> FakeSource:
        """Give an empty table."""
        return FakeSource()


class TestFakeCarbon(SinkContract):
    """The fake Carbon is a sink."""

    @pytest.fixture
    def carbon(self) -> FakeCarbon:
        """Give a Carbon that is up."""
        return FakeCarbon()

    @pytest.fixture
    def stored(self, carbon: FakeCarbon) -> Callable[[str, int], float | None]:
        """Look into what it holds."""
        return lambda path, slot: carbon.sums().get(path, {}).get(slot)


class TestFakeWeb(GraphiteContract):
    """The fake graphite-web says what its files hold."""

    @pytest.fixture
    def carbon(self, tmp_path: Path) -> WhisperCarbon:
        """Give a Carbon that is up."""
        return WhisperCarbon(tmp_path, (Archive(60, 86_400), Archive(3600, 30 * 86_400)), time.time)

    @pytest.fixture
    def web(self, carbon: WhisperCarbon) -> FakeWeb:
        """Give what reads from it."""
        return FakeWeb(carbon)

    @pytest.fixture
    def send(self, carbon: WhisperCarbon) -> Callable[[str, float, int], None]:
        """Write a value to it."""

        def send(path: str, value: float, slot: int) -> None:
            carbon.deliver(points(f"{path} {value} {slot}\n".encode()))
            carbon.flush()

        return send
