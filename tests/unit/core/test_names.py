"""Owners of paths, on a real state, because its registry of series decides."""

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
    """Provide a state with a job that has no series; `tried` leaves it unchanged."""
    folder = tmp_path_factory.mktemp("state")
    with State(str(folder / "shipper.db")) as state:
        begin(state, job())
        yield state


class Undone(Exception):
    """Rolls a recording back."""


def tried(
    state: State, wanted: Job, *rounds: list[Group], owners: tuple[Name, ...] = ()
) -> list[tuple[dict[Group, list[str] | None], RecordResult]]:
    """Claim paths for each list of groups in turn, where some paths have owners; roll back at the end."""
    results = []
    with suppress(Undone), state.recording("events", None) as recording:
        recording.claim(owners)
        for groups in rounds:
            tally = RecordResult()
            results.append((claim_paths(wanted, dict.fromkeys(groups, 1), recording, tally), tally))
        recording.write(done(state, None))
        raise Undone
    return results


def _hash(value: str, digits: int = 6) -> str:
    return sha256(value.encode()).hexdigest()[:digits]


def test_collision(state: State) -> None:
    """The first of two values with one sanitized path gets it, the later one gets a hash; both keep theirs.

    Mutants: the last one gets it; the hash of the sanitized value.
    """
    first, later = ("a b",), ("a/b",)
    expected = {first: ["events.a_b.count"], later: [f"events.a_b-{_hash('a/b')}.count"]}
    results = tried(state, job(), [first, later], [later, first], [later])

    assert [paths for paths, _ in results] == [expected, expected, {later: expected[later]}]
    assert [tally.sanitized for _, tally in results] == [
        [("events.a_b.count", first), (expected[later][0], later)],
        [],
        [],
    ]


def test_hash_taken(state: State) -> None:
    """Where another group owns the path with the short hash, the longer hash is used."""
    owners = (Name("events.a_b.count", ("x",), COUNT), Name(f"events.a_b-{_hash('a b')}.count", ("y",), COUNT))
    ((paths, _),) = tried(state, job(), [("a b",)], owners=owners)

    assert paths == {("a b",): [f"events.a_b-{_hash('a b', 16)}.count"]}


def test_measure_taken(state: State) -> None:
    """Measures have separate paths: only the one whose path is taken gets a hash."""
    wanted = job(measures=(COUNT, Measure("ms", Kind.SUM, "duration_ms")))
    owner = Name("events.a_b.ms", ("x",), COUNT._replace(name="ms"))
    ((paths, _),) = tried(state, wanted, [("a b",)], owners=(owner,))

    assert paths == {("a b",): ["events.a_b.count", f"events.a_b-{_hash('a b')}.ms"]}


def test_too_long(state: State) -> None:
    """A group whose path Carbon could not store has none, does not count for the limit, and is reported.

    Mutant: count it for the limit, which then excludes other groups forever.
    """
    wanted = job(template="events." + "{action}" * 3, max_groups=1)
    ((paths, tally),) = tried(state, wanted, [("x" * 100,), ("a",)])

    assert paths == {("x" * 100,): None, ("a",): ["events.aaa"]}
    assert (tally.nameless, tally.other_rows) == (("x" * 100,), 0)


def test_limit(state: State) -> None:
    """Groups beyond the limit share the paths of OTHER, groups with series keep theirs; rows of OTHER are reported.

    Mutants: count OTHER's group for the limit; let groups with series share OTHER's paths.
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
def test_sanitized_within_the_limit(state: State, room: int, sanitized: list[str], other: Group | None) -> None:
    """Groups that get a sanitized path are reported, those that share the paths of OTHER are not.

    Mutant: report all new groups.
    """
    groups: list[Group] = [("a b",), ("c/d",), ("plain",), ("e f",)]
    ((paths, tally),) = tried(state, job(max_groups=room), groups)

    assert [group for _, group in tally.sanitized] == [(value,) for value in sanitized]
    assert all([path] == paths[group] for path, group in tally.sanitized)
    assert (tally.other, tally.other_rows) == (other, len(groups) - room)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=30, unique=True))
def test_injective(state: State, groups: list[Group]) -> None:
    """Different groups never share a path, and Carbon stores each path unchanged.

    Mutant: sanitize without claiming.
    """
    ((paths, _), (again, _)) = tried(state, TWO, groups, groups[::-1])
    all_paths = [path for own in paths.values() for path in own or []]

    assert again == paths
    assert len(set(all_paths)) == len(all_paths) == len(groups)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,251}(\.[A-Za-z0-9_-]{1,251})*", path) for path in all_paths)
