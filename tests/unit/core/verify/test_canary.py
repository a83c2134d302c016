"""What a canary tells of a Graphite: on Whisper's own files."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import NOW, points
from fakes import FakeWeb, WhisperCarbon
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shipper.core.model import Archive, SeriesData
from shipper.core.verify.canary import Canary, summed

DAY = 86_400
TWO = (Archive(60, DAY), Archive(3600, 30 * DAY))
THREE = (Archive(10, DAY // 4), Archive(60, 7 * DAY), Archive(3600, 366 * DAY))
WIDE = (Archive(60, 2 * DAY), Archive(DAY, 1000 * DAY))
SOME = st.sampled_from([TWO, THREE, WIDE, (Archive(60, DAY),)])


class Ground:
    """A Carbon of its own, and a time."""

    def __init__(self, folder: Path, archives: Sequence[Archive], *, kind: str = "sum", enough: float = 0.0) -> None:
        self.now = NOW
        self.carbon = WhisperCarbon(folder, archives, lambda: self.now)
        self.carbon.kinds["count"] = kind
        self.carbon.enough = enough
        self.web = FakeWeb(self.carbon)

    def fly(self, archives: Sequence[Archive]) -> tuple[Canary, list[SeriesData | None]]:
        """Send a canary of these archives, and ask."""
        canary = Canary(archives, self.now)
        self.carbon.deliver(points("".join(f"a.count {value} {slot}\n" for slot, value in canary.points).encode()))
        self.carbon.flush()
        return canary, [
            next((kept for _, kept in self.web.held(["a.count"], span, step)), None) for span, step in canary.questions
        ]


def bad(canary: Canary, answers: Sequence[SeriesData | None]) -> list[str]:
    """Return what is wrong."""
    return [verdict.text for verdict in canary.verdicts(answers) if not verdict.is_good]


@settings(max_examples=settings().max_examples // 4)
@example(archives=THREE, pauses=[DAY // 4 + 600 - 120 + 60 * n for n in (1, 0, 0, 0)])
@given(archives=SOME, pauses=st.lists(st.integers(0, 3 * DAY) | st.integers(0, 7200), max_size=6))
def test_right_at_any_time(archives: tuple[Archive, ...], pauses: list[int]) -> None:
    """A Graphite that keeps counts right is told so, whenever it is asked, and how often it was asked before.

    Mutants: send points that are too old for the finest archive; judge slots of which it shows a part only.
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
    """One that does not is told what it does instead. Mutants: send equal values; choose slots by their age."""
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
        ([Archive(60, DAY)], ["what is 29d23h49m old is not kept any more", "what is 1d1h old is not kept any more"]),
        ([Archive(60, DAY), Archive(3600, 7 * DAY)], ["what is 29d23h49m old is not kept any more"]),
        ([Archive(60, 7 * DAY), Archive(3600, 30 * DAY)], ["what is 1d1h old has a value each 1m, not each 1h"]),
        ([Archive(60, DAY // 2), Archive(3600, 30 * DAY)], ["what is 23h49m old has a value each 1h, not each 1m"]),
        ([Archive(60, DAY), Archive(7200, 30 * DAY)], ["what is 29d23h49m old has a value each 2h, not each 1h"]),
        ([Archive(300, DAY), Archive(3600, 30 * DAY)], ["what is 23h49m old has a value each 5m, not each 1m"]),
        ([Archive(10, DAY), Archive(3600, 30 * DAY)], ["what is 23h49m old has a value each 10s, not each 1m"]),
    ],
)
def test_other_retentions(tmp_path: Path, archives: list[Archive], expected: list[str]) -> None:
    """Archives that are not what they should be are told, by what answers for times that are theirs."""
    ground = Ground(tmp_path, archives)
    canary, answers = ground.fly(TWO)

    assert [text for text in bad(canary, answers) if text in expected] == expected
    assert canary.has_arrived(answers)


def test_what_does_not_show() -> None:
    """A single value says nothing of the method, and nothing at all says nothing. Mutant: take it for a sum."""
    assert summed(SeriesData(0, 60, [3.0]), SeriesData(0, 3600, [3.0]))[2:] == (None, True)
    assert summed(SeriesData(0, 60, [3.0, 4.0]), SeriesData(0, 3600, [None]))[2:] == (None, False)
    assert summed(SeriesData(0, 60, [None]), SeriesData(0, 3600, [None]))[2:] == (None, None)


def test_not_there(tmp_path: Path) -> None:
    """A canary of another time is not taken for the one that was sent. Mutant: send the same values always."""
    ground = Ground(tmp_path, TWO)
    _, answers = ground.fly(TWO)

    assert not Canary(TWO, ground.now + 1).has_arrived(answers)
    assert not Canary(TWO, ground.now).has_arrived([None] * len(answers))
