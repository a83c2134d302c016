"""What a look has found."""

from collections.abc import Iterator
from typing import NamedTuple

from shipper.core.errors import ShipperError


class Finding(NamedTuple):
    """One thing that was looked at; remedy is empty where nothing is wrong."""

    is_good: bool
    subject: str
    text: str
    remedy: str = ""


def attempted(subject: str, looks: Iterator[Finding]) -> Iterator[Finding]:
    """Yield what a look finds, and at its end why it could not go on: what comes after it is looked at all the same."""
    try:
        yield from looks
    except ShipperError as error:
        yield Finding(False, subject, str(error), error.hint or "")
