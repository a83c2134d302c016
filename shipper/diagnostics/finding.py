"""The result of a check."""

from collections.abc import Iterator
from typing import NamedTuple

from shipper.core.errors import ShipperError


class Finding(NamedTuple):
    """The result of one check; a good one has a remedy if it is a warning."""

    is_good: bool
    subject: str
    text: str
    remedy: str = ""


def attempted(subject: str, checks: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the results of checks, and the error that ends them; later checks run all the same."""
    try:
        yield from checks
    except ShipperError as error:
        yield Finding(False, subject, str(error), error.hint or "")
