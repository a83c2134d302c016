"""Requests to graphite-web; every failure becomes one short reason."""

import json
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from shipper.core.errors import ShipperError

PART_BYTES = 65_536


def fetch_json(url: str, body: bytes | None, *, timeout: float, failure: Callable[[str], ShipperError]) -> Any:
    """Return the JSON that a server answers to a GET, or to a POST of a body.

    timeout bounds each step: connect, wait, read the answer, in seconds. A failure is raised as the error that failure
    makes of its reason.
    """
    try:
        with urlopen(Request(url, body), timeout=timeout) as answer:  # noqa: S310 - callers accept http and https only
            return json.loads(_read_all(answer, time.monotonic() + timeout))
    except HTTPError as error:
        error.close()
        raise failure(f"HTTP {error.code} {error.reason}") from error
    except (ValueError, RecursionError) as error:  # a login page, for example
        raise failure(f"the answer is not JSON: {error}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise failure("timed out" if isinstance(reason, TimeoutError) else str(reason)) from error


def _read_all(answer: HTTPResponse, deadline: float) -> bytes:
    """Read an answer to its end; one that arrives byte by byte does not end in time."""
    parts: list[bytes] = []
    while part := answer.read1(PART_BYTES):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)
