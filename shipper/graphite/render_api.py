"""graphite-web's render API: reads the values that Graphite holds.

It merges Carbon's cache with the files; it knows a new series once Carbon has written its file.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from shipper.core.errors import ReadbackFailed
from shipper.core.model import SeriesData, Span
from shipper.graphite.http import fetch_json

MOST_TARGETS = 900  # Django rejects a request of more than 1,000 fields
MOST_POINTS = 100_000  # of one answer: 2.5 MB
NO_RENDER_API = "the answer does not come from graphite-web's render API"
_MISREAD = (KeyError, TypeError, ValueError, OverflowError)


class Readback:
    """One Graphite, read over HTTP."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """Connect nowhere yet; timeout bounds each step of a request, in seconds."""
        self._url = url.rstrip("/")
        self._timeout = timeout

    def __str__(self) -> str:
        return urlsplit(self._url).netloc

    def read(self, paths: Sequence[str], slot: int) -> dict[str, float | None]:
        """Return the value that Graphite holds of each path in a slot, None where it holds none.

        Raises:
            ReadbackFailed: no answer, or one that cannot be understood.
        """
        values: dict[str, float | None] = dict.fromkeys(paths)
        for first in range(0, len(paths), MOST_TARGETS):
            for series in self._series(paths[first : first + MOST_TARGETS], Span(slot, slot + 2)):
                values |= self._value(series, slot)
        return values

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield the values of each path that Graphite knows, in a span of slots of step seconds.

        The archive that covers the beginning of the span answers, in slots of its step.

        Raises:
            ReadbackFailed: no answer, or one that cannot be understood.
        """
        most = max(1, min(MOST_TARGETS, MOST_POINTS * step // (span.end - span.start)))
        for first in range(0, len(paths), most):
            for series in self._series(paths[first : first + most], Span(span.start, span.end - step + min(step, 2))):
                yield self._data(series, step)

    def _series(self, paths: Sequence[str], span: Span) -> Sequence[Mapping[str, Any]]:
        # `from` is exclusive; `until` is inclusive in graphite-web and exclusive in VictoriaMetrics: a second after the
        # last slot serves both; without noCache an answer may be a minute old, and without maxDataPoints graphite-web
        # combines no datapoints
        fields = [("format", "json"), ("noCache", "1"), ("from", str(span.start - 1)), ("until", str(span.end - 1))]
        body = urlencode([*fields, *(("target", path) for path in paths)]).encode()
        series: Any = fetch_json(f"{self._url}/render", body, timeout=self._timeout, failure=self._failure)
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

    def _data(self, series: Mapping[str, Any], step: int) -> tuple[str, SeriesData]:
        try:
            times = [int(time) for _, time in series["datapoints"]]
            values = [None if value is None else float(value) for value, _ in series["datapoints"]]
            path = str(series["target"])
        except _MISREAD as error:
            raise self._failure(NO_RENDER_API) from error
        return path, SeriesData(times[0] if times else 0, times[1] - times[0] if len(times) > 1 else step, values)

    def _failure(self, reason: str) -> ReadbackFailed:
        hint = "Check that graphite-web runs, and that render_url in [graphite] is its address."
        return ReadbackFailed(f"read back from {self}: {reason}", hint=hint)
