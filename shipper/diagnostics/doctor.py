"""`shipper admin doctor`: a canary is sent to Carbon, and graphite-web asked what became of it.

Carbon's cache shows through graphite-web, put together by that one's rules: what an answer says counts once it stays.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from shipper.config.load import Config
from shipper.core.errors import ConfigError
from shipper.core.model import Datapoint, SeriesData
from shipper.core.paths import node, path
from shipper.core.verify.canary import Canary, Sums, Verdict
from shipper.graphite.carbon import Carbon
from shipper.graphite.render_api import Readback
from shipper.runtime.endpoints import open_carbon, open_readback

NAME = "_doctor"  # in the place of a job's
LOOK_SECONDS = 0.5
STEADY_SECONDS = 3.0  # Carbon has written what it had in its cache by then, mostly
AGAIN_SECONDS = 5.0  # the points of a series that Carbon does not make at once are dropped: they are sent again

Answers = Sequence[SeriesData | None]

_UNSEEN = (
    "Does Carbon make new series (MAX_CREATES_PER_MINUTE in carbon.conf, a full disk)? Does render_url name the "
    "graphite-web that reads its files?"
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the canary has shown."""

    series: str
    verdicts: list[Verdict]
    sums: list[Sums]
    """How each archive becomes the next."""

    @property
    def is_right(self) -> bool:
        """Will this Graphite keep counts right?"""
        return all(verdict.is_good for verdict in self.verdicts)


def examine(config: Config, *, wait: float) -> Examined:
    """Let a canary show how this Graphite keeps series; Carbon may take so long to make a new one, seconds.

    Raises:
        ConfigError: nobody says what Graphite holds.
        DeliveryFailed: Carbon does not take it.
        ReadbackFailed: graphite-web does not answer.
    """
    readback = open_readback(config)
    if readback is None:
        raise ConfigError(
            f"examine the Graphite of {config.file}: nobody says what it holds",
            hint='Add graphite-web\'s address to [graphite], as in render_url = "http://graphite.internal".',
        )
    begin = f"{config.graphite.prefix}." if config.graphite.prefix else ""
    series = begin + path(node(socket.gethostname()), NAME, "count")
    canary = Canary(config.graphite.retentions, int(time.time()))
    answers = _Look(canary, series, readback).answers(open_carbon(config), wait)
    if not any(answers):
        return Examined(series, [Verdict(False, f"it is not in Graphite {wait:.0f} s after it was sent", _UNSEEN)], [])
    has_arrived = canary.has_arrived(answers)
    arrival = Verdict(has_arrived, "what is sent is there" if has_arrived else "what was sent is not there")
    return Examined(series, [arrival, *canary.verdicts(answers)], canary.sums(answers))


class _Look:
    """A canary on its way."""

    def __init__(self, canary: Canary, series: str, readback: Readback) -> None:
        self._canary = canary
        self._series = series
        self._readback = readback

    def answers(self, carbon: Carbon, wait: float) -> Answers:
        """Send it, and return what Graphite says of it in the end."""
        answers, began, due = self._asked(), time.monotonic(), 0.0
        is_new = not any(answers)
        while not self._canary.has_arrived(answers) and time.monotonic() - began < wait:
            if time.monotonic() >= due:
                self._send(carbon)
                due = time.monotonic() + AGAIN_SECONDS
            time.sleep(LOOK_SECONDS)
            answers = self._asked()
        # of a new one Carbon's cache is written, single point first, before anybody sees it
        if is_new and all(verdict.is_good for verdict in self._canary.verdicts(answers)):
            return answers
        return self._steady(answers, wait)

    def _steady(self, answers: Answers, wait: float) -> Answers:
        """Return what Graphite says once it stays so."""
        began = changed = time.monotonic()
        while time.monotonic() < min(changed + STEADY_SECONDS, began + wait):
            time.sleep(LOOK_SECONDS)
            before, answers = answers, self._asked()
            changed = changed if answers == before else time.monotonic()
        return answers

    def _send(self, carbon: Carbon) -> None:
        try:
            carbon.deliver(Datapoint(self._series, value, slot) for slot, value in self._canary.points)
        finally:
            carbon.close()

    def _asked(self) -> Answers:
        asked = (self._readback.held([self._series], span, step) for span, step in self._canary.questions)
        return [next((kept for _, kept in answer), None) for answer in asked]
