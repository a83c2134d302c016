"""`shipper admin doctor`: sends a test series (a canary) to Carbon, and reads it back from graphite-web.

graphite-web merges Carbon's cache with the files by its own rules: an answer counts once it stays the same.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shipper.config.load import Config
from shipper.core.errors import DeliveryFailed
from shipper.core.model import Datapoint, SeriesData
from shipper.core.paths import node, path
from shipper.core.verify.canary import Canary, Sums, Verdict
from shipper.graphite.receivers import Receivers
from shipper.graphite.render_api import Readback
from shipper.runtime.endpoints import open_carbon, receivers, required_readback

NAME = "_doctor"  # instead of a job's name
READ_SECONDS = 0.5
STEADY_SECONDS = 3.0  # in this time Carbon mostly writes its cache
AGAIN_SECONDS = 5.0  # Carbon drops datapoints of a series that it does not create at once: send them again

Answers = Sequence[SeriesData | None]

_UNSEEN = (
    "Check that Carbon creates series (MAX_CREATES_PER_MINUTE and USE_WHITELIST in carbon.conf, a full disk), and that "
    "render_url names the graphite-web that reads its files."
)
_OLD_FILE = (
    "Once Carbon's configuration is correct, delete {}.wsp in its Whisper directory (LOCAL_DATA_DIR in "
    "carbon.conf), and test again: Carbon never changes a file that it has created."
)


@dataclass(frozen=True, slots=True)
class Examination:
    """Results of a canary."""

    series: str
    verdicts: list[Verdict]
    sums: list[Sums]
    """How each archive is combined into the next."""

    @property
    def is_right(self) -> bool:
        """Whether this Graphite stores counts correctly."""
        return all(verdict.is_good for verdict in self.verdicts)


def examine(config: Config, *, wait: float) -> Examination:
    """Test with a canary how this Graphite stores series; wait for Carbon to create one at most `wait`, in seconds.

    Raises:
        ConfigError: no render_url is configured.
        DeliveryFailed: Carbon does not accept it.
        ReadbackFailed: graphite-web does not answer.
    """
    readback = required_readback(config, "test Graphite")
    # send it, and read it until the answers stay
    series = path(config.graphite.prefix, node(socket.gethostname()), NAME, "count")
    canary = Canary(config.graphite.retentions, int(time.time()))
    flight = _Flight(canary, series, readback)
    answers = flight.answers(open_carbon(config), wait)
    # judge
    if not any(answers):
        return Examination(
            series, [Verdict(False, f"the test series is not in Graphite {wait:.0f} s after it was sent", _UNSEEN)], []
        )
    verdicts = canary.judge_arrival(flight.before, answers)
    verdicts += [_with_file(verdict, series) for verdict in canary.verdicts(answers)]
    if canary.has_arrived(answers):
        verdicts += _judge_receivers(config, series, readback, wait)
    return Examination(series, verdicts, canary.sums(answers))


def _with_file(verdict: Verdict, series: str) -> Verdict:
    """Add to the remedy of a wrong setting that the file of the test series keeps it."""
    old_file = _OLD_FILE.format(series.replace(".", "/"))
    return verdict if verdict.is_good else verdict._replace(remedy=f"{verdict.remedy} {old_file}")


def _judge_receivers(config: Config, series: str, readback: Readback, wait: float) -> Iterator[Verdict]:
    """Judge whether each of several receivers sends to this Graphite."""
    several = receivers(config) if len(config.graphite.addresses) > 1 else []
    for number, carbon in enumerate(several, 1):
        # the time decides the values: no canary has those of another
        canary = Canary(config.graphite.retentions, int(time.time()) + number)
        try:
            answers = _Flight(canary, series, readback).answers(Receivers([carbon]), wait)
        except DeliveryFailed as error:
            yield Verdict(False, str(error), error.hint or "")
            continue
        if canary.has_arrived(answers):
            yield Verdict(True, f"{carbon} sends to this Graphite")
        else:
            remedy = (
                "Remove this relay from `hosts`, or let it send to the same Graphite as the others: else that "
                "Graphite lacks the values that this relay receives."
            )
            yield Verdict(False, f"values sent to {carbon} cannot be read", remedy)


class _Flight:
    """A canary that is sent and read."""

    def __init__(self, canary: Canary, series: str, readback: Readback) -> None:
        self._canary = canary
        self._series = series
        self._readback = readback
        self.before = self._read()
        """Graphite's answers before it was sent."""

    def answers(self, carbon: Receivers, wait: float) -> Answers:
        """Send it until it has arrived, and return Graphite's final answers."""
        answers, began, due = self.before, time.monotonic(), 0.0
        is_new = not any(answers)
        while not self._canary.has_arrived(answers) and time.monotonic() - began < wait:
            if time.monotonic() >= due:
                self._send(carbon)
                due = time.monotonic() + AGAIN_SECONDS
            time.sleep(READ_SECONDS)
            answers = self._read()
        # the cache of a new series is written, single point first, before graphite-web shows the series
        if is_new and all(verdict.is_good for verdict in self._canary.verdicts(answers)):
            return answers
        return self._steady(answers, wait)

    def _steady(self, answers: Answers, wait: float) -> Answers:
        """Return Graphite's answers once they stay the same."""
        began = changed = time.monotonic()
        while time.monotonic() < min(changed + STEADY_SECONDS, began + wait):
            time.sleep(READ_SECONDS)
            before, answers = answers, self._read()
            changed = changed if answers == before else time.monotonic()
        return answers

    def _send(self, carbon: Receivers) -> None:
        try:
            for batch in (*([rewrite] for rewrite in self._canary.rewrites), self._canary.points):
                carbon.deliver(Datapoint(self._series, value, slot) for slot, value in batch)
        finally:
            carbon.close()

    def _read(self) -> Answers:
        answers = (self._readback.held([self._series], span, step) for span, step in self._canary.questions)
        return [next((series for _, series in answer), None) for answer in answers]
