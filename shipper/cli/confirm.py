"""Commands that change something: show the plan, ask, run it and show the progress.

The running service runs it, through its control socket; where no service runs, the command holds the state and runs it.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import click

from shipper.cli.options import format_time
from shipper.cli.output import Styled, say, show_json
from shipper.cli.service import address_of

WIDTH = 30
SILENCE_SECONDS = 600.0  # the longest pause between two reports of the service: a piece of a backfill, with time-outs

Facts = Mapping[str, Any]


class Progress:
    """Progress of an operation on stderr: a bar in a terminal, elsewhere a line for each tenth.

    A backfill first searches the ids for its rows, then counts them.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = ("", 0)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown[0] and sys.stderr.isatty():
            say(err=True)

    def report(self, facts: Facts) -> None:
        """Show a report of the operation."""
        if "searched" in facts:
            share = facts["searched"] / facts["of"]
            self._show("search", share, f"searching rows: {share:4.0%}")
            return
        done, seconds = facts["done"], max(time.monotonic() - self._began, 0.001)
        bar = "#" * round(done * WIDTH)
        left = seconds / done * (1 - done)
        self._show(
            "count",
            done,
            f"{bar:-<{WIDTH}} {done:4.0%}  {facts['rows']:,} rows  {facts['datapoints'] / seconds:,.0f} datapoints/s"
            f"  {left // 60:.0f}:{left % 60:02.0f} left",
        )

    def _show(self, phase: str, done: float, text: str) -> None:
        shown = (phase, int(done * 10))
        if sys.stderr.isatty():
            say(Styled("\r\x1b[K"), text, err=True, nl=False)
        elif shown != self._shown:
            say(text, err=True)
        self._shown = shown


class Messages(NamedTuple):
    """The text about an operation, made of its plan's facts and of its result."""

    plan: Callable[[Facts], Sequence[str]]
    done: Callable[[Facts], str]


def act(file: str, operation: str, arguments: Facts, messages: Messages, *, output: str, is_sure: bool) -> None:
    """Perform the only operation of a command; see `perform`."""
    performed = perform(file, operation, arguments, messages, is_json=output == "json", is_sure=is_sure)
    if output == "json":
        show_json(performed)


def perform(file: str, operation: str, arguments: Facts, messages: Messages, *, is_json: bool, is_sure: bool) -> Facts:
    """Show the plan of an operation, ask, run it and show its result; return plan and result as JSON values.

    Raises:
        ShipperError: it is not possible, or ended early.
    """
    # plan, and let the operator decide; meanwhile nothing is locked, and a service may start
    plan = show_plan(file, operation, arguments, messages, is_json=is_json)
    confirm(is_sure=is_sure)
    # run exactly this plan
    progress = Progress()
    with _operate(file, progress) as operate, progress:
        result = operate(operation=operation, arguments=plan["arguments"], is_plan=False)
    say(messages.done(result), err=is_json)
    if not result["is_delivered"]:
        say("Carbon has not received all of it yet; the rest is sent later: see `shipper status`.", err=True)
    return {"plan": plan["facts"], "done": result}


def show_plan(file: str, operation: str, arguments: Facts, messages: Messages, *, is_json: bool) -> Facts:
    """Show and return the plan of an operation, and change nothing.

    Raises:
        ShipperError: it is not possible.
    """
    with _operate(file, Progress()) as operate:
        plan = operate(operation=operation, arguments=arguments, is_plan=True)
    for line in messages.plan(plan["facts"]):
        say(line, err=is_json)
    return plan


@contextmanager
def _operate(file: str, progress: Progress) -> Iterator[Callable[..., Facts]]:
    """Provide the function that plans or runs operations: in the service, or here where none runs."""
    from functools import partial

    from shipper.config.load import load
    from shipper.log import logger as log
    from shipper.operations import registry
    from shipper.service.control import ask

    address = address_of(file)
    if address is not None:
        yield lambda **request: ask(address, "operate", request, timeout=SILENCE_SECONDS, report=progress.report)
        return
    log.start(is_quiet=True)
    with registry.alone(load(file), progress.report) as context:
        yield partial(registry.operate, context)


def confirm(*, is_sure: bool) -> None:
    """Ask whether to continue; end the command with 1 if not."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this would change data: pass --yes to confirm without a terminal.")
    if not click.confirm("Continue?", err=True):
        say("nothing was changed", err=True)
        sys.exit(1)


def _backfill_plan(facts: Facts) -> list[str]:
    lines = [f"{facts['job']}: recounts these slots from the rows that exist now, and replaces them in Graphite:"]
    lines += [f"  {format_time(start)} up to {format_time(end)}" for start, end in facts["spans"]]
    lines += ["  values become lower in slots whose rows were deleted: 0 if no row is left"]
    first, last = facts["spans"][0][0], facts["spans"][-1][1]
    if any(start < first or end > last for start, end in facts["requested"]):
        lines += ["  the rest of the span is not recounted: it is in the future, too old, or its rows may be purged"]
    if facts["gap"] is not None:
        end, since = map(format_time, facts["gap"])
        remedy = f"to recount them, too, give an --until of {since} or later"
        lines += [f"  slots from {end} until {since} are before the job's first complete slot, and stay incomplete"]
        lines += [f"  {remedy}"]
    if facts["ids"] is not None:
        lines += [f"  searches {facts['ids']} ids for its rows"]
    if facts["resumes_at"] is not None:
        lines += [f"  continues at {format_time(facts['resumes_at'])}, where it was interrupted"]
    return lines


BACKFILL = Messages(_backfill_plan, "{job}: {rows} rows, {datapoints} datapoints in {seconds} s".format_map)
"""The text about a backfill, whichever command runs it."""
