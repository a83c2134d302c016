"""The fakes keep the contracts of the real ends."""

from collections.abc import Callable

import pytest
from contract import CarrierContract, SourceContract
from fakes import FakeCarbon, FakeSource


class TestFakeSource(SourceContract):
    """The fake table is a source."""

    @pytest.fixture
    def table(self) -> FakeSource:
        """Give an empty table."""
        return FakeSource()


class TestFakeCarbon(CarrierContract):
    """The fake Carbon is a carrier."""

    @pytest.fixture
    def carbon(self) -> FakeCarbon:
        """Give a Carbon that is up."""
        return FakeCarbon()

    @pytest.fixture
    def stored(self, carbon: FakeCarbon) -> Callable[[str, int], float | None]:
        """Look into what it holds."""
        return lambda path, slot: carbon.sums().get(path, {}).get(slot)
