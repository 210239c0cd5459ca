"""Workers come with the work and go without it; none waits for a place that an idle one holds."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.elastic import IDLE_SECONDS, Changes, Held, changes
from orchestrator.placement import Seat

SEATS = {"small": Seat("small", 0.25, 8), "large": Seat("large", 1.0, 2)}
BUSY, WAITING = Held("small", True, None), Held("small", False, 0.0)
IDLE = Held("small", True, 0.0)


def test_as_many_are_asked_for_as_have_work_and_fit() -> None:
    found = changes({}, SEATS, {"small": 3, "large": 9}, 100, 0.0)
    assert found == Changes(("small",) * 3 + ("large",) * 2, ())
    assert changes({}, SEATS, {"small": 3, "large": 9}, 2, 0.0).ask == ("small", "small")
    assert changes({"a": BUSY, "b": WAITING}, SEATS, {"small": 3}, 100, 0.0).ask == ("small",)


def test_one_that_waits_for_a_place_goes_as_soon_as_there_is_no_work_for_it() -> None:
    held = {"a": BUSY, "b": WAITING, "c": WAITING}
    assert changes(held, SEATS, {"small": 2}, 100, 0.1) == Changes((), ("c",))
    assert changes(held, SEATS, {"small": 1}, 100, 0.1).close == ("c", "b")


def test_an_idle_one_is_kept_for_a_while() -> None:
    held = {"a": BUSY, "b": IDLE}
    assert changes(held, SEATS, {"small": 1}, 100, IDLE_SECONDS - 1) == Changes((), ())
    assert changes(held, SEATS, {"small": 1}, 100, IDLE_SECONDS) == Changes((), ("b",))
    assert changes(held, SEATS, {"small": 2}, 100, IDLE_SECONDS) == Changes((), ())


def test_an_idle_one_makes_room_at_once_for_another_kind_that_waits() -> None:
    held = {"a": IDLE, "b": Held("large", False, 0.0)}
    demand = {"large": 1}
    assert changes(held, SEATS, demand, 100, 1.0) == Changes((), ())  # It may find a place yet.
    assert changes(held, SEATS, demand, 100, 6.0) == Changes((), ("a",))
    # Where the most are held already, there is nothing to wait for.
    assert changes({"a": IDLE}, SEATS, demand, 1, 0.0) == Changes(("large",), ("a",))


@given(
    held=st.dictionaries(
        st.integers(0, 30).map(str),
        st.builds(
            Held, st.sampled_from(sorted(SEATS)), st.booleans(), st.none() | st.floats(0, 100)
        ),
    ),
    demand=st.dictionaries(st.sampled_from(sorted(SEATS)), st.integers(0, 12)),
    most=st.integers(1, 12),
)
def test_what_works_is_never_given_back_and_limits_hold(
    held: dict[str, Held], demand: dict[str, int], most: int
) -> None:
    found = changes(held, SEATS, demand, most, 100.0)
    assert len(set(found.close)) == len(found.close)
    assert all(not held[n].ready or held[n].since is not None for n in found.close)
    left = [worker.seat for name, worker in held.items() if name not in found.close]
    after = [*left, *found.ask]
    assert len(after) <= max(most, len(left))
    for name, seat in SEATS.items():
        wanted = min(demand.get(name, 0), seat.most)
        assert found.ask.count(name) <= max(0, wanted - left.count(name))
        if name in {held[n].seat for n in found.close}:
            assert left.count(name) >= wanted
            assert name not in found.ask
