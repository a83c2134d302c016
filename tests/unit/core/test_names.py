"""Whose paths are whose: on a real state, because its registry is what decides."""

import re
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

import pytest
from builders import begin, done, job
from hypothesis import given
from hypothesis import strategies as st

from shipper.core.ledger import Name, RecordResult
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Group, Job
from shipper.core.paths import claim_paths
from shipper.state.store import State

VALUES = st.none() | st.text(st.sampled_from(["a", "b", "A", "_", "-", " ", ".", "/", "é", "\n"]), max_size=4)
TWO = job(by=("action", "outcome"), template="{action}.{outcome}.{measure}")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    """Give a state with a job that has no series; `tried` leaves it so."""
    folder = tmp_path_factory.mktemp("state")
    with State(str(folder / "shipper.db")) as state:
        begin(state, job())
        yield state


class Undone(Exception):
    """Ends a recording that is not to stay."""


def tried(
    state: State, wanted: Job, *rounds: list[Group], owners: tuple[Name, ...] = ()
) -> list[tuple[dict[Group, list[str] | None], RecordResult]]:
    """Name groups, each list beside those before it, where some paths have owners; leave nothing behind."""
    found = []
    with suppress(Undone), state.recording("events", None) as recording:
        recording.claim(owners)
        for groups in rounds:
            tally = RecordResult()
            found.append((claim_paths(wanted, dict.fromkeys(groups, 1), recording, tally), tally))
        recording.write(done(state, None))
        raise Undone
    return found


def _hash(value: str, digits: int = 6) -> str:
    return sha256(value.encode()).hexdigest()[:digits]


def test_collision(state: State) -> None:
    """The first value that cleans to a path has it, a later one gets a hash, and both keep theirs.

    Mutants: the last one has it; the hash of the clean value.
    """
    first, later = ("a b",), ("a/b",)
    expected = {first: ["events.a_b.count"], later: [f"events.a_b-{_hash('a/b')}.count"]}
    found = tried(state, job(), [first, later], [later, first], [later])

    assert [paths for paths, _ in found] == [expected, expected, {later: expected[later]}]
    assert [tally.sanitized for _, tally in found] == [
        [("events.a_b.count", first), (expected[later][0], later)],
        [],
        [],
    ]


def test_hash_taken(state: State) -> None:
    """Where even the short hash is taken, a longer one is not."""
    owners = (Name("events.a_b.count", ("x",), COUNT), Name(f"events.a_b-{_hash('a b')}.count", ("y",), COUNT))
    ((paths, _),) = tried(state, job(), [("a b",)], owners=owners)

    assert paths == {("a b",): [f"events.a_b-{_hash('a b', 16)}.count"]}


def test_measure_taken(state: State) -> None:
    """Each measure has a path of its own: only the one that is taken gets a hash."""
    wanted = job(measures=(COUNT, Measure("ms", Kind.SUM, "duration_ms")))
    owner = Name("events.a_b.ms", ("x",), COUNT._replace(name="ms"))
    ((paths, _),) = tried(state, wanted, [("a b",)], owners=(owner,))

    assert paths == {("a b",): ["events.a_b.count", f"events.a_b-{_hash('a b')}.ms"]}


def test_too_long(state: State) -> None:
    """A group whose path Carbon could not hold has none, takes no room, and is told.

    Mutant: count it for the limit, which then keeps others out for ever.
    """
    wanted = job(template="events." + "{action}" * 3, max_groups=1)
    ((paths, tally),) = tried(state, wanted, [("x" * 100,), ("a",)])

    assert paths == {("x" * 100,): None, ("a",): ["events.aaa"]}
    assert (tally.nameless, tally.other_rows) == (("x" * 100,), 0)


def test_limit(state: State) -> None:
    """Groups beyond the limit share the paths of OTHER, those that have series keep them; all their rows are told.

    Mutants: count OTHER's own group before; let the known ones go.
    """
    wanted = job(max_groups=2)
    (first, _), (later, tally) = tried(state, wanted, [("a",)], [("b",), ("c",), ("d",), ("a",)])

    assert first == {("a",): ["events.a.count"]}
    other = ["events._other.count"]
    assert later == {("a",): ["events.a.count"], ("b",): ["events.b.count"], ("c",): other, ("d",): other}
    assert (tally.other_rows, tally.other) == (2, ("c",))


@pytest.mark.parametrize(
    ("room", "sanitized", "other"),
    [(0, [], ("a b",)), (1, ["a b"], ("c/d",)), (2, ["a b", "c/d"], ("plain",)), (4, ["a b", "c/d", "e f"], None)],
)
def test_cleaned_within_the_limit(state: State, room: int, sanitized: list[str], other: Group | None) -> None:
    """Reported as sanitized are the groups that have got a path of their own, not those that share OTHER's.

    Mutant: all new ones.
    """
    groups: list[Group] = [("a b",), ("c/d",), ("plain",), ("e f",)]
    ((paths, tally),) = tried(state, job(max_groups=room), groups)

    assert [group for _, group in tally.sanitized] == [(value,) for value in sanitized]
    assert all([path] == paths[group] for path, group in tally.sanitized)
    assert (tally.other, tally.other_rows) == (other, len(groups) - room)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=30, unique=True))
def test_injective(state: State, groups: list[Group]) -> None:
    """Different groups never share a path, and each path is one that Carbon stores as it is written.

    Mutant: clean without claiming.
    """
    ((paths, _), (again, _)) = tried(state, TWO, groups, groups[::-1])
    all_paths = [path for own in paths.values() for path in own or []]

    assert again == paths
    assert len(set(all_paths)) == len(all_paths) == len(groups)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,251}(\.[A-Za-z0-9_-]{1,251})*", path) for path in all_paths)
