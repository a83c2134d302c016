"""Unit tests touch no network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from life import Life
from pytest_socket import disable_socket

from shipper.state.store import State

HERE = Path(__file__).parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse sockets to the tests of this folder, which the hook is called for among others."""
    if HERE in item.path.parents:
        disable_socket(allow_unix_socket=True)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Give an empty state."""
    with State(str(tmp_path / "shipper.db")) as state:
        yield state


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Give five rows of three minutes, not shipped yet."""
    life = Life(tmp_path)
    life.insert(
        (120, "login", "ok"), (120, "login", "failure"), (60, "totp", "ok"), (60, "login", "ok"), (0, "totp", "ok")
    )
    yield life
    life.state.close()
