"""The client of the render API, without a network: its requests, and the values that it reads from answers."""

import json
from collections.abc import Callable, Iterator
from itertools import chain, count, islice, repeat
from typing import Any, Self
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shipper.core.errors import ReadbackFailed
from shipper.core.model import SeriesData, Span
from shipper.graphite import http
from shipper.graphite.render_api import Readback

SLOT = 1_790_000_040
OK = b"HTTP/1.0 200 OK\r\n\r\n"
FOREIGN = "the answer does not come from graphite-web's render API"


class Web:
    """A graphite-web that records each request, and has a settable answer; it is its own connection."""

    answer: Callable[[list[str]], bytes]
    parts: Iterator[bytes]
    """What is received next; each answer comes behind it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, list[tuple[str, str]]]] = []
        """Address and fields of each request."""
        self.answer = lambda _: OK + b"[]"
        self.parts = iter(())
        self.timeouts: list[float] = []
        self.received = 0

    def connect(self, host: str, port: int, *, timeout: float) -> Self:
        """Open a connection."""
        self._address = host if port == 80 else f"{host}:{port}"
        return self

    def settimeout(self, seconds: float) -> None:
        """Record a time-out."""
        self.timeouts.append(seconds)

    def send(self, part: memoryview) -> int:
        """Record a request, and prepare its answer."""
        head, _, body = bytes(part).partition(b"\r\n\r\n")
        line, host, *_ = head.decode().split("\r\n")
        assert (line.split()[0], host) == ("POST", f"Host: {self._address}")
        fields = parse_qsl(body.decode(), strict_parsing=True)
        self.requests.append((f"http://{self._address}{line.split()[1]}", fields))
        answer = self.answer([value for name, value in fields if name == "target"])
        self.parts = chain(self.parts, [answer])
        return len(part)

    def recv_into(self, buffer: Any) -> int:
        """Return the next part in the buffer."""
        part = next(self.parts, b"")
        self.parts = chain([part[len(buffer) :]] if len(part) > len(buffer) else [], self.parts)
        buffer[: len(part)] = part[: len(buffer)]
        self.received += min(len(part), len(buffer))
        return min(len(part), len(buffer))

    def close(self) -> None:
        """Close nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    """Answer every request."""
    web = Web()
    monkeypatch.setattr(http, "connect", web.connect)
    return web


def rendered(values: dict[str, Any], slot: int = SLOT) -> bytes:
    """Return an answer of the render API, with a slot and the one before."""
    series = [{"target": path, "datapoints": [[7, slot - 60], [value, slot]]} for path, value in values.items()]
    return OK + json.dumps(series).encode()


def rendered_value(value: object) -> bytes:
    """Return an answer with one datapoint of any value."""
    return rendered({"a": value})


def test_read_asks_for_a_slot(web: Web) -> None:
    """A request is for one slot without cache, and for each path; `from` and `until` may both be exclusive.

    Mutants: without noCache; from the slot on; until the slot; until the next.
    """
    web.answer = lambda _: rendered({"a.count": 5, "b;dc=eu": None})
    values = Readback("http://graphite.internal/", timeout=7).read(["a.count", "b;dc=eu", "c"], SLOT)

    assert values == {"a.count": 5.0, "b;dc=eu": None, "c": None}
    fields = [("format", "json"), ("noCache", "1"), ("from", str(SLOT - 1)), ("until", str(SLOT + 1))]
    targets = [("target", "a.count"), ("target", "b;dc=eu"), ("target", "c")]
    assert web.requests == [("http://graphite.internal/render", fields + targets)]
    assert all(6 < seconds <= 7 for seconds in web.timeouts)


@pytest.mark.parametrize(("paths", "requests"), [(0, []), (900, [900]), (901, [900, 1])])
def test_read_page_by_page(web: Web, paths: int, requests: list[int]) -> None:
    """A request has at most 900 targets, and none is missing. Mutants: 901; the first page only."""
    web.answer = lambda targets: rendered(dict.fromkeys(targets, 1))
    values = Readback("http://graphite.internal", timeout=7).read([f"s{n}" for n in range(paths)], SLOT)

    assert [len(fields) - 4 for _, fields in web.requests] == requests
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


def answer(*series: object) -> bytes:
    """Return an answer with series."""
    return json.dumps(series).encode()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.0 500 Oops\r\n\r\n", "HTTP 500 Oops$"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n" + rendered({"a": 1}).partition(b"\r\n\r\n")[2], "HTTP 400 Bad Request$"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", "HTTP 204 No Content$"),
        (b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "it redirects to file:///etc/passwd$"),
        (b"HTTP/1.0 500 \x1b[31m" + b"x" * 5000 + b"\r\n\r\n", r"HTTP 500 \N{REPLACEMENT CHARACTER}\[31mx{286}\.\.\.$"),
        (b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n[]", r"compressed \(gzip\)"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n[]", "ends 7 bytes early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n[]\r\n", "IncompleteRead"),
        (b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n[]", "more than 100 headers"),
        (b"[]", r"\[\]"),
        (b"", "closed connection"),
        (OK + b"<html>", "Expecting value"),
        (OK + b"\xff\xfe\xfd", "not JSON"),
        (OK + b"[" * 10_000, "nested too deeply"),
        (OK + b"[" * 51 + b"]" * 51, "nested too deeply"),
        (OK + b'[{"target": "a", "datapoints": [[%s, 1790000040]]}]' % (b"9" * 401), "a number of 401 digits"),
        (OK + b'[{"target": "a", "datapoints": [[Infinity, 1790000040]]}]', "Infinity is not a number"),
        *(
            (OK + text, FOREIGN)
            for text in (
                *(b"1", b"null", b'"a"', b'""', b"{}", b'{"a": 1}', b"[1]", b"[null]", b"[[]]", b'[{"target": "a"}]'),
                answer({"target": "a", "datapoints": 1}),
                answer({"target": "a", "datapoints": [[1]]}),
                answer({"target": "a", "datapoints": [[1, 2, 3]]}),
                answer({"target": "a", "datapoints": {"12": 1}}),
                answer({"target": "a", "datapoints": ["12"]}),
                answer({"target": "a", "datapoints": [[1, None]]}),
                answer({"target": "a", "datapoints": [[1, "1790000040"]]}),
                answer({"target": "a", "datapoints": [[1, True]]}),
                answer({"target": "a", "datapoints": [[1, 1790000040.5]]}),
                answer({"target": "a", "datapoints": [[1, -60]]}),
                answer({"target": "a", "datapoints": [[1, 10**300]]}),
                b'[{"target": "a", "datapoints": [[1, 1e9999]]}]',
                answer({"target": "a", "datapoints": [["much", SLOT]]}),
                answer({"target": "a", "datapoints": [["5", SLOT]]}),
                answer({"target": "a", "datapoints": [[True, SLOT]]}),
                answer({"target": "a", "datapoints": [[[], SLOT]]}),
                answer({"target": "a", "datapoints": [[10**309, SLOT]]}),
                answer({"target": "a", "datapoints": [[1, SLOT], [2, SLOT]]}),
                answer({"target": "a", "datapoints": [[1, SLOT], [2, SLOT - 60]]}),
                answer({"target": "a", "datapoints": [[1, SLOT], [2, SLOT + 60], [3, SLOT + 61]]}),
                answer({"target": "a", "datapoints": []}, {"target": "a", "datapoints": []}),
                answer({"target": ["a"], "datapoints": [[1, SLOT]]}),
                answer({"target": None, "datapoints": []}),
                answer({"datapoints": [[1, SLOT]]}),
            )
        ),
    ],
)
def test_bad_answers(web: Web, answer: bytes, reason: str) -> None:
    """Every bad answer is a failure with a remedy. Mutants: take it for an empty one; each check left out."""
    web.answer = lambda _: answer
    readback = Readback("http://graphite.internal", timeout=7)
    with pytest.raises(ReadbackFailed, match=reason) as caught:
        readback.read(["a"], SLOT)
    with pytest.raises(ReadbackFailed, match=reason):
        list(readback.held(["a"], Span(SLOT, SLOT + 600), 60))

    assert "render_url" in str(caught.value.hint)


def test_infinity_that_carbon_has_stored(web: Web) -> None:
    """A value that graphite-web writes as 1e9999 is one, and differs from every other: sending again repairs it."""
    web.answer = lambda _: OK + b'[{"target": "a", "datapoints": [[1e9999, %d]]}]' % SLOT

    assert Readback("http://graphite.internal", timeout=7).read(["a"], SLOT) == {"a": float("inf")}


def test_series_that_was_not_asked_for(web: Web) -> None:
    """A series of another path is left out."""
    web.answer = lambda _: rendered({"a": 1, "b": 2})
    readback = Readback("http://graphite.internal", timeout=7)

    assert readback.read(["a"], SLOT) == {"a": 1.0}
    assert [path for path, _ in readback.held(["a"], Span(SLOT, SLOT + 600), 60)] == ["a"]


@pytest.mark.parametrize(
    "head", [OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;x=y\r\n[\r\n", b""]
)
def test_endless_answer(web: Web, head: bytes) -> None:
    """The client ends an endless answer, or head, soon: an answer is hardly larger than what was asked for.

    Mutant: a limit of the body alone.
    """
    web.parts = chain([head], repeat(b"1\r\n[\r\n")) if head else repeat(b"HTTP/1.1 100 Continue\r\n\r\n")
    with pytest.raises(ReadbackFailed, match="the answer is larger than"):
        Readback("http://graphite.internal", timeout=7).read(["a"], SLOT)

    assert web.received < 40_000


@pytest.mark.parametrize("head", [OK, b"HTTP/1.0 200 OK\r\nX: "])
def test_answer_in_drops(web: Web, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """The client gives up an answer, or head, that arrives byte by byte after the time-out.

    Mutant: the time-out of each drop alone.
    """
    clock = count(0, 0.1)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    web.parts = chain([head], islice(repeat(b"["), 1000))
    with pytest.raises(ReadbackFailed, match="timed out"):
        Readback("http://graphite.internal", timeout=7).read(["a"], SLOT)

    assert len(web.requests) == 1
    assert web.received < 100 + len(head)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(SLOT)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["target", "datapoints", "x"]), inner, max_size=3)
        | st.fixed_dictionaries({"target": st.sampled_from(["a", "b"]), "datapoints": inner})
        | st.lists(st.tuples(inner, st.integers(SLOT - 2, SLOT + 2) | inner), max_size=3)
    ),
    max_leaves=12,
)


@given(
    st.binary(max_size=200) | DOCUMENTS.map(lambda one: OK + json.dumps(one).encode()) | DOCUMENTS.map(rendered_value)
)
@example(OK + b'[{"target": "a", "datapoints": [[1, 1790000040]]}]')
def test_any_answer(text: bytes) -> None:
    """Any answer is one of graphite-web's, with values for the paths that were asked for, or a failure of it.

    Mutant: no check that times ascend.
    """
    web = Web()
    web.answer = lambda _: text
    readback = Readback("http://graphite.internal", timeout=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "connect", web.connect)
        try:
            values = readback.read(["a"], SLOT)
            series = dict(readback.held(["a"], Span(SLOT - 600, SLOT + 60), 60))
        except ReadbackFailed as error:
            assert str(error).isprintable()  # noqa: PT017 - most answers are failures, and some are none
            return

    assert values.keys() == {"a"}
    assert all(type(value) in {float, type(None)} for value in values.values())
    assert series.keys() <= {"a"}
    assert all(one.step > 0 and one.start >= 0 for one in series.values())
