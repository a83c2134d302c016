"""How far a command is: a bar in a terminal, else a line for each tenth; on stderr."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import click

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
