"""Answers to requests, by path.

Health checks answer as those of Kubernetes: one word, or one line for each check.
"""

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

from shipper.core.errors import ShipperError
from shipper.status.page import prometheus
from shipper.status.page.html import page
from shipper.status.report import Report

_TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """Answer to one request."""

    status: int
    kind: str
    body: str


def answer(path: str, query: str, report: Callable[[], Report]) -> Answer:
    """Return the answer to GET of a path."""
    if path not in _PATHS:
        return Answer(404, _TEXT, f"not found; known paths: {' '.join(_PATHS)}\n")
    try:
        return _PATHS[path](report(), query)
    except ShipperError as error:
        return Answer(503, _TEXT, f"{error}\n{error.hint or ''}\n")


def _health(verdict: tuple[bool, str]) -> Answer:
    is_good, text = verdict
    return Answer(200 if is_good else 503, _TEXT, text)


_PATHS: dict[str, Callable[[Report, str], Answer]] = {
    "/": lambda report, _: Answer(200, "text/html; charset=utf-8", page(report)),
    "/livez": lambda report, _: _health(livez(report)),
    "/readyz": lambda report, query: _health(readyz(report, is_verbose="verbose" in query.split("&"))),
    "/metrics": lambda report, _: Answer(200, prometheus.CONTENT_TYPE, prometheus.metrics(report)),
    "/status": lambda report, _: Answer(200, "application/json", json.dumps(report.document(), indent=1) + "\n"),
}


def livez(report: Report) -> tuple[bool, str]:
    """Return whether all components make progress; a restart may fix one, but no dead Carbon or database."""
    return not report.stalled, "".join(f"{_line(reason)}\n" for reason in report.stalled) or "ok\n"


def readyz(report: Report, *, is_verbose: bool) -> tuple[bool, str]:
    """Return whether the service is healthy, by its report; if not, always in detail."""
    if report.is_ready and not is_verbose:
        return True, "; ".join(["ok", *report.remarks()]) + "\n"
    verdict = "passed" if report.is_ready else "failed"
    return report.is_ready, f"{_lines(report.checks())}readyz check {verdict}\n"


def _lines(checks: Iterable[tuple[str, str | None]]) -> str:
    return "".join(
        f"[+]{_line(name)} ok\n" if reason is None else f"[-]{_line(name)} failed: {_line(reason)}\n"
        for name, reason in checks
    )


def _line(text: str) -> str:
    return " ".join(text.split())
