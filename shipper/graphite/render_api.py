"""graphite-web's render API: what Graphite holds of what was sent.

It merges Carbon's cache with the files; a series that is new is known once its file is written.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from shipper.core.errors import ReadbackFailed
from shipper.core.model import SeriesData, Span

MOST_TARGETS = 900  # Django refuses a request of more than 1,000 fields
PART_BYTES = 65_536
NO_RENDER_API = "its answer is not one of the render API"
_MISREAD = (KeyError, TypeError, ValueError, OverflowError)
MOST_POINTS = 100_000  # of one answer: 2.5 MB


class Readback:
    """One Graphite, asked over HTTP."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Connect nowhere yet. timeout bounds each step of a request: connect, wait, read the answer; seconds."""
        self._url = url.rstrip("/")
        self._timeout = timeout

    def __str__(self) -> str:
        return urlsplit(self._url).netloc

    def read(self, paths: Sequence[str], slot: int) -> dict[str, float | None]:
        """Return what Graphite holds of each path in a slot, None where it holds nothing.

        Raises:
            ReadbackFailed: no answer, or one that is not to be understood.
        """
        found: dict[str, float | None] = dict.fromkeys(paths)
        for first in range(0, len(paths), MOST_TARGETS):
            for series in self._asked(paths[first : first + MOST_TARGETS], Span(slot, slot + 1)):
                found |= self._value(series, slot)
        return found

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield what Graphite holds of each path that it knows in a span of slots of step seconds.

        The archive that covers the beginning of the span answers, in slots of its own step.

        Raises:
            ReadbackFailed: no answer, or one that is not to be understood.
        """
        most = max(1, min(MOST_TARGETS, MOST_POINTS * step // (span.end - span.start)))
        for first in range(0, len(paths), most):
            for series in self._asked(paths[first : first + most], Span(span.start, span.end - step + 1)):
                yield self._kept(series, step)

    def _asked(self, paths: Sequence[str], span: Span) -> Sequence[Mapping[str, Any]]:
        # `from` is exclusive, `until` is not; without noCache an answer may be a minute old, and without maxDataPoints
        # nothing is put together
        fields = [("format", "json"), ("noCache", "1"), ("from", str(span.start - 1)), ("until", str(span.end - 1))]
        body = urlencode([*fields, *(("target", path) for path in paths)]).encode()
        try:
            with urlopen(Request(f"{self._url}/render", body), timeout=self._timeout) as answer:  # noqa: S310 - the configuration allows http and https only
                series: Sequence[Mapping[str, Any]] = json.loads(_all_of(answer, time.monotonic() + self._timeout))
        except HTTPError as error:
            error.close()
            raise self._failure(f"HTTP {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            reason = getattr(error, "reason", None) or error
            raise self._failure("timed out" if isinstance(reason, TimeoutError) else str(reason)) from error
        if not isinstance(series, list):
            raise self._failure(NO_RENDER_API)
        return series

    def _value(self, series: Mapping[str, Any], slot: int) -> dict[str, float | None]:
        try:
            values = {int(time): value for value, time in series["datapoints"]}
            value = values.get(slot)
            return {str(series["target"]): None if value is None else float(value)}
        except _MISREAD as error:
            raise self._failure(NO_RENDER_API) from error

    def _kept(self, series: Mapping[str, Any], step: int) -> tuple[str, SeriesData]:
        try:
            times = [int(time) for _, time in series["datapoints"]]
            values = [None if value is None else float(value) for value, _ in series["datapoints"]]
            path = str(series["target"])
        except _MISREAD as error:
            raise self._failure(NO_RENDER_API) from error
        return path, SeriesData(times[0] if times else 0, times[1] - times[0] if len(times) > 1 else step, values)

    def _failure(self, reason: str) -> ReadbackFailed:
        return ReadbackFailed(
            f"read back from {self}: {reason}", hint="Is graphite-web up, and does [graphite] render_url name it?"
        )


def _all_of(answer: HTTPResponse, deadline: float) -> bytes:
    """Read an answer to its end; one that comes in drops does not get there in time."""
    parts: list[bytes] = []
    while part := answer.read1(PART_BYTES):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)
