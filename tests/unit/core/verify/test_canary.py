"""Judgement of Carbon's settings by a canary, on real Whisper files."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import pytest
from builders import NOW, points
from fakes import FakeWeb, WhisperCarbon
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shipper.core.model import Archive, SeriesData
from shipper.core.verify.canary import Canary, sums_of

DAY = 86_400
TWO = (Archive(60, DAY), Archive(3600, 30 * DAY))
THREE = (Archive(10, DAY // 4), Archive(60, 7 * DAY), Archive(3600, 366 * DAY))
WIDE = (Archive(60, 2 * DAY), Archive(DAY, 1000 * DAY))
SOME = st.sampled_from([TWO, THREE, WIDE, (Archive(60, DAY),)])


class Ground:
    """A Carbon, and the time."""

    def __init__(self, folder: Path, archives: Sequence[Archive], *, kind: str = "sum", enough: float = 0.0) -> None:
        self.now = NOW
        self.carbon = WhisperCarbon(folder, archives, lambda: self.now)
        self.carbon.kinds["count"] = kind
        self.carbon.enough = enough
        self.web = FakeWeb(self.carbon)

    def fly(self, archives: Sequence[Archive]) -> tuple[Canary, list[SeriesData | None]]:
        """Send a canary for these archives; return it with the answers."""
        canary = Canary(archives, self.now)
        self.carbon.deliver(points("".join(f"a.count {value} {slot}\n" for slot, value in canary.points).encode()))
        self.carbon.flush()
        return canary, [
            next((data for _, data in self.web.held(["a.count"], span, step)), None) for span, step in canary.questions
        ]


def bad(canary: Canary, answers: Sequence[SeriesData | None]) -> list[str]:
    """Return the texts of bad verdicts."""
    return [verdict.text for verdict in canary.verdicts(answers) if not verdict.is_good]


@settings(max_examples=settings().max_examples // 4)
@example(archives=THREE, pauses=[DAY // 4 + 600 - 120 + 60 * n for n in (1, 0, 0, 0)])
@given(archives=SOME, pauses=st.lists(st.integers(0, 3 * DAY) | st.integers(0, 7200), max_size=6))
def test_right_at_any_time(archives: tuple[Archive, ...], pauses: list[int]) -> None:
    """A correct Graphite gets good verdicts, at any time, and however often it was tested before.

    Mutants: send points that are too old for the finest archive; judge slots of which it shows only a part.
    """
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder), archives)
        for pause in [0, *pauses]:
            ground.now += pause
            canary, answers = ground.fly(archives)

            assert canary.has_arrived(answers)
            assert bad(canary, answers) == []
            if archives in {TWO, THREE}:
                assert canary.sums(answers)[0][2:] == ("sum", True)


@settings(max_examples=settings().max_examples // 4)
@given(
    pauses=st.lists(st.integers(0, 3 * DAY) | st.integers(0, 7200), max_size=3),
    archives=st.sampled_from([TWO, THREE]),
    how=st.sampled_from([("average", 0.0), ("sum", 0.5), ("last", 0.0), ("max", 0.0), ("min", 0.0), ("average", 0.5)]),
)
def test_wrong_at_any_time(pauses: list[int], archives: tuple[Archive, ...], how: tuple[str, float]) -> None:
    """A wrong aggregation is reported by its method. Mutants: send equal values; choose slots by their age."""
    kind, enough = how
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder), archives, kind=kind, enough=enough)
        for pause in [0, *pauses]:
            ground.now += pause
            canary, answers = ground.fly(archives)
            sums = canary.sums(answers)[0]

            assert bad(canary, answers)
            assert sums.keeps_single == (enough == 0)
            assert sums.method == kind


@pytest.mark.parametrize(
    ("archives", "expected"),
    [
        ([Archive(60, DAY)], ["values 29d23h old are not kept", "values 1d1h old are not kept"]),
        ([Archive(60, DAY), Archive(3600, 7 * DAY)], ["values 29d23h old are not kept"]),
        ([Archive(60, 7 * DAY), Archive(3600, 30 * DAY)], ["values 1d1h old have a step of 1m, not 1h"]),
        ([Archive(60, DAY // 2), Archive(3600, 30 * DAY)], ["values 23h49m old have a step of 1h, not 1m"]),
        ([Archive(60, DAY), Archive(7200, 30 * DAY)], ["values 29d23h old have a step of 2h, not 1h"]),
        ([Archive(300, DAY), Archive(3600, 30 * DAY)], ["values 23h49m old have a step of 5m, not 1m"]),
        ([Archive(10, DAY), Archive(3600, 30 * DAY)], ["values 23h49m old have a step of 10s, not 1m"]),
    ],
)
def test_other_retentions(tmp_path: Path, archives: list[Archive], expected: list[str]) -> None:
    """Wrong retentions are reported, by the archive that answers for their times."""
    ground = Ground(tmp_path, archives)
    canary, answers = ground.fly(TWO)

    assert [text for text in bad(canary, answers) if text in expected] == expected
    assert canary.has_arrived(answers)


def test_inconclusive_values() -> None:
    """A single value does not show the method, no value shows nothing. Mutant: take it for a sum."""
    assert sums_of(SeriesData(0, 60, [3.0]), SeriesData(0, 3600, [3.0]))[2:] == (None, True)
    assert sums_of(SeriesData(0, 60, [3.0, 4.0]), SeriesData(0, 3600, [None]))[2:] == (None, False)
    assert sums_of(SeriesData(0, 60, [None]), SeriesData(0, 3600, [None]))[2:] == (None, None)


@pytest.mark.parametrize(
    ("kind", "combine"), [("average", fmean), ("largest", max), ("first", lambda values: values[0]), ("sum", sum)]
)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_receiver_without_overwriting(kind: str, combine: Callable[[list[float]], float], times: int) -> None:
    """A receiver that does not keep the last value is named, also if all is sent several times, and in a second test.

    Mutants: send growing values only; send larger values in an earlier canary.
    """
    sent: dict[int, list[float]] = {}
    before: list[SeriesData | None] = [None, None]
    for now in (NOW, NOW + 30) if kind != "first" else (NOW,):
        canary = Canary((Archive(60, DAY),), now)
        for slot, value in (*canary.rewrites, *canary.points) * times:
            sent.setdefault(slot, []).append(value)
        slots = range(canary.questions[1].span.start, canary.questions[1].span.end, 60)
        view = SeriesData(slots.start, 60, [combine(sent[slot]) if slot in sent else None for slot in slots])
        assert not canary.has_arrived([None, view])
        arrival, last = canary.judge_arrival(before, [None, view])

        assert (arrival.is_good, last.is_good) == (True, False)
        assert last.text == f"a value sent again: Graphite keeps the {kind}, not the last"
        assert kind != "average" or last.remedy.endswith("this test still shows ✗.")
        before = [None, view]


def test_not_there(tmp_path: Path) -> None:
    """Points of an earlier canary are not taken for those that were sent. Mutant: always send the same values."""
    ground = Ground(tmp_path, TWO)
    _, answers = ground.fly(TWO)

    later = Canary(TWO, ground.now + 1)
    assert not later.has_arrived(answers)
    (verdict,) = later.judge_arrival(answers, answers)
    assert (verdict.is_good, "the values just sent are not in it" in verdict.text) == (False, True)
    assert "`shipper admin doctor --wait 2m`" in verdict.remedy  # `shipper check --canary` has no --wait
    assert not Canary(TWO, ground.now).has_arrived([None] * len(answers))
