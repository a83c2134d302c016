"""The client of the render API, without a network: its requests, and the values that it reads from answers."""

import io
import json
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from itertools import count
from typing import Any
from urllib.parse import parse_qsl
from urllib.request import HTTPHandler, Request, build_opener, install_opener

import pytest

from shipper.core.errors import ReadbackFailed
from shipper.core.model import SeriesData, Span
from shipper.graphite.render_api import Readback

SLOT = 1_790_000_040
OK = b"HTTP/1.0 200 OK\r\n\r\n"


class Web(HTTPHandler):
    """A graphite-web that records each request, and has a settable answer."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, list[tuple[str, str]], float | None]] = []
        """Address, fields and time-out of each request."""
        self.answer: Callable[[list[str]], bytes] = lambda _: OK + b"[]"

    def http_open(self, request: Request) -> HTTPResponse:
        """Record a request, and answer it."""
        assert isinstance(request.data, bytes)
        fields = parse_qsl(request.data.decode(), strict_parsing=True)
        self.requests.append((request.full_url, fields, request.timeout))
        peer = _Peer(self.answer([value for name, value in fields if name == "target"]))
        response = HTTPResponse(peer)  # type: ignore[arg-type] # all that it needs of a socket
        response.begin()
        response.msg = response.reason  # type: ignore[assignment] # as urllib does
        return response


class _Peer:
    """A socket that holds an answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, _: str) -> io.BufferedReader:
        """Return a reader of the answer."""
        return io.BufferedReader(io.BytesIO(self._answer))


@pytest.fixture
def web() -> Iterator[Web]:
    """Answer every request of urllib."""
    web = Web()
    install_opener(build_opener(web))
    yield web
    install_opener(None)  # back to urllib's own


def rendered(values: dict[str, Any], slot: int = SLOT) -> bytes:
    """Return an answer of the render API, with a slot and the one before."""
    series = [{"target": path, "datapoints": [[7, slot - 60], [value, slot]]} for path, value in values.items()]
    return OK + json.dumps(series).encode()


def test_read_asks_for_a_slot(web: Web) -> None:
    """A request is for one slot without cache, and for each path; `from` and `until` may both be exclusive.

    Mutants: without noCache; from the slot on; until the slot; until the next.
    """
    web.answer = lambda _: rendered({"a.count": 5, "b;dc=eu": None})
    values = Readback("http://graphite.internal/", timeout=7).read(["a.count", "b;dc=eu", "c"], SLOT)

    assert values == {"a.count": 5.0, "b;dc=eu": None, "c": None}
    fields = [("format", "json"), ("noCache", "1"), ("from", str(SLOT - 1)), ("until", str(SLOT + 1))]
    targets = [("target", "a.count"), ("target", "b;dc=eu"), ("target", "c")]
    assert web.requests == [("http://graphite.internal/render", fields + targets, 7)]


@pytest.mark.parametrize(("paths", "requests"), [(0, []), (900, [900]), (901, [900, 1])])
def test_read_page_by_page(web: Web, paths: int, requests: list[int]) -> None:
    """A request has at most 900 targets, and none is missing. Mutants: 901; the first page only."""
    web.answer = lambda targets: rendered(dict.fromkeys(targets, 1))
    values = Readback("http://graphite.internal", timeout=7).read([f"s{n}" for n in range(paths)], SLOT)

    assert [len(fields) - 4 for _, fields, _ in web.requests] == requests
    assert values == {f"s{n}": 1.0 for n in range(paths)}


def test_read_neighbours(web: Web) -> None:
    """A value of another slot is not returned."""
    web.answer = lambda _: rendered({"a": 5}, SLOT - 60)

    assert Readback("http://graphite.internal", timeout=7).read(["a"], SLOT) == {"a": None}


def test_held_asks_for_a_span(web: Web) -> None:
    """A request covers the span with its last slot; the result has the step of the answer."""
    web.answer = lambda _: rendered({"a": 5})
    values = list(Readback("http://graphite.internal", timeout=7).held(["a"], Span(SLOT - 60, SLOT + 60), 60))

    assert values == [("a", SeriesData(SLOT - 60, 60, [7.0, 5.0]))]
    assert web.requests[0][1][2:] == [("from", str(SLOT - 61)), ("until", str(SLOT + 1)), ("target", "a")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.0 500 Oops\r\n\r\n", "HTTP 500 Oops"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n" + rendered({"a": 1}).partition(b"\r\n\r\n")[2], "HTTP 400 Bad Request"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", "Expecting value"),
        (OK + b"<html>", "Expecting value"),
        (OK + b"\xff\xfe\xfd", "read back from graphite.internal"),
        (OK + b"[" * 100_000, "read back from graphite.internal"),
        *(
            (OK + answer, "the answer does not come from graphite-web's render API")
            for answer in (
                *(b"1", b"null", b'"a"', b'{"a": 1}', b"[1]", b"[null]", b"[[]]", b'[{"target": "a"}]'),
                b'[{"target": "a", "datapoints": 1}]',
                b'[{"target": "a", "datapoints": [[1]]}]',
                b'[{"target": "a", "datapoints": [[1, null]]}]',
                b'[{"target": "a", "datapoints": [[1, Infinity]]}]',
                b'[{"target": "a", "datapoints": [["much", 1790000040]]}]',
                b'[{"target": "a", "datapoints": [[[], 1790000040]]}]',
                b'[{"datapoints": [[1, 1790000040]]}]',
            )
        ),
    ],
)
def test_bad_answers(web: Web, answer: bytes, reason: str) -> None:
    """Every bad answer is a failure with a remedy. Mutant: take it for an empty one."""
    web.answer = lambda _: answer
    with pytest.raises(ReadbackFailed, match=reason) as caught:
        Readback("http://graphite.internal", timeout=7).read(["a"], SLOT)

    assert "render_url" in str(caught.value.hint)


class _Drops(io.RawIOBase):
    """The head of an answer, then one byte at a time, without an end."""

    drops = 0

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Return the next part in the buffer."""
        part = b"[" if self.drops else OK
        buffer[: len(part)] = part
        self.drops += 1
        return len(part)


def test_answer_in_drops(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gives up an endless answer after the time-out. Mutant: the time-out of each drop alone."""
    drops, clock = _Drops(), count(0, 3)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(_Peer, "makefile", lambda *_: io.BufferedReader(drops))
    with pytest.raises(ReadbackFailed, match="timed out"):
        Readback("http://graphite.internal", timeout=7).read(["a"], SLOT)

    assert len(web.requests) == 1
    assert drops.drops < 10
