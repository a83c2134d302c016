"""graphite-web's render API: reads the values that Graphite holds.

It merges Carbon's cache with the files; it knows a new series once Carbon has written its file. An answer in which
anything is not as graphite-web writes it is no answer: nothing of it is used.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode, urlsplit

from shipper.core.errors import ReadbackFailed
from shipper.core.model import SeriesData, Span
from shipper.graphite.http import MOST_BYTES, fetch_json

MOST_TARGETS = 900  # Django rejects a request of more than 1,000 fields
MOST_POINTS = 100_000  # of one answer: 2.5 MB
POINT_BYTES = 64  # a time, and a double with all of its digits
SERIES_BYTES = 1_000  # all but the path, which an answer has several times
HEAD_BYTES = 16_384
LATEST = 2**40  # times beyond the year 36,000 are none
NO_RENDER_API = "the answer does not come from graphite-web's render API"
NO_SERIES = "shipper.status"  # asked for to see whether Graphite answers


_Series = tuple[str, list[int], list[float | None]]
"""Path of a series, and its times, each with a value."""


class Readback:
    """One Graphite, read over HTTP; each call may raise ReadbackFailed: no answer, or one that cannot be understood."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Connect nowhere yet; timeout bounds each request, in seconds."""
        self._url = url.rstrip("/")
        self._timeout = timeout

    def __str__(self) -> str:
        return urlsplit(self._url).netloc

    def ask(self) -> None:
        """Ask for a series that need not exist."""
        self.read([NO_SERIES], int(time.time()) // 60 * 60)

    def read(self, paths: Sequence[str], slot: int) -> dict[str, float | None]:
        """Return the value that Graphite holds of each path in a slot, None where it holds none."""
        values: dict[str, float | None] = dict.fromkeys(paths)
        for first in range(0, len(paths), MOST_TARGETS):
            asked = paths[first : first + MOST_TARGETS]
            for path, times, found in self._series(asked, Span(slot, slot + 2), points=4):
                values[path] = dict(zip(times, found, strict=True)).get(slot)
        return values

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield the values of each path that Graphite knows, in a span of slots of step seconds.

        The archive that covers the beginning of the span answers, in slots of its step.
        """
        points = (span.end - span.start) // step
        most = max(1, min(MOST_TARGETS, MOST_POINTS // max(1, points)))
        until = span.end - step + min(step, 2)
        for first in range(0, len(paths), most):
            asked = paths[first : first + most]
            # Graphite may have a shorter step: then its answer is longer than expected
            expected = max(points, MOST_BYTES // POINT_BYTES // len(asked))
            for path, times, values in self._series(asked, Span(span.start, until), points=expected):
                start, length = times[0] if times else 0, times[1] - times[0] if len(times) > 1 else step
                yield path, SeriesData(start, length, values)

    def _series(self, paths: Sequence[str], span: Span, *, points: int) -> list[_Series]:
        """Return the series of paths in a span, each with as many points at most as an answer is long enough for."""
        # `from` is exclusive; `until` is inclusive in graphite-web and exclusive in VictoriaMetrics: a second after the
        # last slot serves both; without noCache an answer may be a minute old, and without maxDataPoints graphite-web
        # combines no datapoints
        fields = [("format", "json"), ("noCache", "1"), ("from", str(span.start - 1)), ("until", str(span.end - 1))]
        body = urlencode([*fields, *(("target", path) for path in paths)]).encode()
        most = HEAD_BYTES + sum(SERIES_BYTES + 8 * len(path) + POINT_BYTES * points for path in paths)
        url, timeout = f"{self._url}/render", self._timeout
        answer: Any = fetch_json(url, body, timeout=timeout, failure=self._failure, most=most)
        try:
            series = {one[0]: one for one in map(_checked, answer)}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self._failure(NO_RENDER_API) from error
        if not isinstance(answer, list) or len(series) < len(answer):
            raise self._failure(NO_RENDER_API)
        return [series[path] for path in paths if path in series]

    def _failure(self, reason: str) -> ReadbackFailed:
        hint = "Check that graphite-web runs, and that render_url in [graphite] is its address."
        return ReadbackFailed(f"read back from {self}: {reason}", hint=hint)


def _checked(series: Any) -> _Series:
    """Return a series of an answer.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it is none.
    """
    path, datapoints = series["target"], series["datapoints"]
    seconds = [_number(second) for _, second in datapoints]
    values = [None if value is None else _number(value) for value, _ in datapoints]
    times = [int(second) for second in seconds]
    # each slot once, in order, at equal distances
    steps = {later - earlier for earlier, later in pairwise(times)}
    if not isinstance(path, str) or len(steps) > 1 or min(steps, default=1) <= 0:
        raise ValueError(path)
    if times != seconds or not all(0 <= time < LATEST for time in times):
        raise ValueError(times)
    return path, times, values


def _number(value: object) -> float:
    """Return a number, infinities among them: graphite-web writes one that Carbon has stored as 1e9999."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return float(value)
