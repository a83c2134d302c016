"""How commands change something: the plan is shown, and done once somebody says so.

The running service does it, asked at its control socket; where none runs the command does, holding the state.

How far a command is: a bar in a terminal, else a line for each tenth; on stderr.

How a backfill is told, whoever asked for it.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import click

from shipper.cli.options import format_time
from shipper.cli.output import show_json

WIDTH = 30


class Progress:
    """Shows what an operation tells: how much of the ids was looked through, then how much of the time is counted."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = ("", 0)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown[0] and sys.stderr.isatty():
            click.echo(err=True)

    def tell(self, told: Mapping[str, Any]) -> None:
        """Show how far it is."""
        if "looked" in told:
            looked = told["looked"] / told["of"]
            self._show("looks", looked, f"looking for its rows: {looked:4.0%}")
            return
        done, seconds = told["done"], max(time.monotonic() - self._began, 0.001)
        bar = "#" * round(done * WIDTH)
        left = seconds / done * (1 - done)
        self._show(
            "counts",
            done,
            f"{bar:-<{WIDTH}} {done:4.0%}  {told['rows']:,} rows  {told['datapoints'] / seconds:,.0f} datapoints/s"
            f"  {left // 60:.0f}:{left % 60:02.0f} left",
        )

    def _show(self, what: str, done: float, text: str) -> None:
        shown = (what, int(done * 10))
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        elif shown != self._shown:
            click.echo(text, err=True)
        self._shown = shown


SILENCE_SECONDS = 600.0  # the longest between two words of the service: a piece of a backfill, with time-outs

Facts = Mapping[str, Any]


class _Actor(Protocol):
    """Who does it."""

    def __call__(self, half: str, arguments: Facts) -> Facts:
        """Do one half of the operation, and return what it says."""


class Messages(NamedTuple):
    """How an operation is told to people."""

    plan: Callable[[Facts], Sequence[str]]
    """The lines of what will be done."""
    done: Callable[[Facts], str]


def act(file: str, operation: str, arguments: Facts, told: Messages, *, output: str, is_sure: bool) -> None:
    """Do an operation that is all that its command does; see `perform`."""
    performed = perform(file, operation, arguments, told, is_talk=output == "json", is_sure=is_sure)
    if output == "json":
        show_json(performed)


def perform(file: str, operation: str, arguments: Facts, told: Messages, *, is_talk: bool, is_sure: bool) -> Facts:
    """Show the plan of an operation, ask, do it and say what is done; return both, for programs.

    Raises:
        ShipperError: it cannot be done, or was not done to its end.
    """
    progress = Progress()
    plan = _planned(file, operation, arguments, told, progress, is_talk=is_talk)
    _confirm(is_sure=is_sure)
    # whoever thinks about it holds nothing; and a service may have been started meanwhile
    with _actor(file, progress) as actor, progress:
        result = actor("carry out", {"operation": operation, "arguments": plan["arguments"]})
    click.echo(told.done(result), err=is_talk)
    if not result["is_delivered"]:
        click.echo("Carbon does not have all of it yet: it is sent as soon as it can be; `shipper status`.", err=True)
    return {"plan": plan["facts"], "done": result}


def look(file: str, operation: str, arguments: Facts, told: Messages, *, output: str) -> None:
    """Show the plan of an operation, and do nothing.

    Raises:
        ShipperError: it cannot be done.
    """
    is_talk = output == "json"
    plan = _planned(file, operation, arguments, told, Progress(), is_talk=is_talk)
    if is_talk:
        show_json({"plan": plan["facts"], "done": None})


def _planned(
    file: str, operation: str, arguments: Facts, told: Messages, progress: Progress, *, is_talk: bool
) -> Mapping[str, Any]:
    """Return what is done, and show it."""
    with _actor(file, progress) as actor:
        plan = actor("plan", {"operation": operation, "arguments": arguments})
    for line in told.plan(plan["facts"]):
        click.echo(line, err=is_talk)
    return plan


@contextmanager
def _actor(file: str, progress: Progress) -> Iterator[_Actor]:
    from shipper import log
    from shipper.config.load import load
    from shipper.operations import registry as operations
    from shipper.service.control import ask
    from shipper.state.database import holder

    held = holder(str(load(file, with_credentials=False).state.path))
    if held is not None and held.address is not None:
        address = held.address
        yield lambda half, arguments: ask(address, half, arguments, timeout=SILENCE_SECONDS, tell=progress.tell)
        return
    log.start(is_quiet=True)
    with operations.alone(load(file), progress.tell) as doing:
        yield lambda half, arguments: operations.HALVES[half](doing, arguments)


def _confirm(*, is_sure: bool) -> None:
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this changes something, and there is no terminal to ask: say --yes.")
    if not click.confirm("Do it?", err=True):
        click.echo("nothing was changed", err=True)
        sys.exit(1)


def _backfill_plan(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['job']}: counts again, in whole slots, and replaces in Graphite:"]
    lines += [f"  {format_time(start)} up to {format_time(end)}" for start, end in facts["spans"]]
    first, last = facts["spans"][0][0], facts["spans"][-1][1]
    if any(start < first or end > last for start, end in facts["asked"]):
        lines += ["  what else was asked for stays as it is: it is to come, too old for Graphite, or may be purged"]
    if facts["ids"] is not None:
        lines += [f"  looks for its rows among {facts['ids']} ids"]
    if facts["resumes_at"] is not None:
        lines += [f"  goes on at {format_time(facts['resumes_at'])}, where it was ended"]
    return lines


def _backfilled(result: Mapping[str, Any]) -> str:
    return f"{result['job']}: {result['rows']} rows, {result['datapoints']} datapoints in {result['seconds']} s"


BACKFILL = Messages(_backfill_plan, _backfilled)
