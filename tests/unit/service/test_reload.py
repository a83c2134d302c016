"""Reloads of the service."""

from typing import Any

import pytest

from shipper.core.errors import StateBusy
from shipper.service.reload import Reloader


def test_reload_during_the_stop() -> None:
    """A reload that waited until the service stopped replaces nothing. Mutant: load the file."""
    nothing: Any = None
    reloader = Reloader(nothing, nothing, nothing, renewed=lambda: None)
    with reloader.lock:
        reloader.is_stopping = True

    with pytest.raises(StateBusy, match="shutting down"):
        reloader.reload()
