"""When a cluster is given more homes at a time, and when fewer."""

from __future__ import annotations

import pytest

from control_plane.migrator.pace import START, Pace, Sample

QUIET = Sample(busy=4, crowded=0, blocked=0)


def grown(ceiling: int = 8) -> Pace:
    """A pace that has reached its ceiling in quiet windows of homes that took 10 ms."""
    pace = Pace(ceiling)
    for _ in range(ceiling):
        window(pace)
        assert pace.decide(QUIET) is None
    assert pace.limit == ceiling
    return pace


def window(pace: Pace, homes: int = 100, seconds: float = 0.01, missed: int = 0) -> None:
    for _ in range(homes):
        pace.took(seconds)
    for _ in range(missed):
        pace.missed()


def test_it_begins_low_and_grows_by_one_in_each_quiet_window() -> None:
    pace, limits = Pace(5), []
    for _ in range(5):
        limits.append(pace.limit)
        window(pace)
        pace.decide(QUIET)
    assert limits == [START, 3, 4, 5, 5]


def test_a_window_without_work_changes_nothing() -> None:
    pace = Pace(5)
    for _ in range(5):
        assert pace.decide(QUIET) is None
    assert pace.limit == START


def test_a_ceiling_below_the_start_holds() -> None:
    pace = Pace(1)
    window(pace)
    pace.decide(QUIET)
    assert pace.limit == 1


@pytest.mark.parametrize(
    ("sample", "sign"),
    [
        (Sample(busy=4, crowded=0, blocked=1), "1 sessions waited for a migration"),
        (Sample(busy=4, crowded=3, blocked=0), "3 of 4 busy sessions waited for what they share"),
    ],
)
def test_what_the_server_says_of_itself_halves_it(sample: Sample, sign: str) -> None:
    pace = grown()
    window(pace)
    assert pace.decide(sample) == sign
    assert pace.limit == 4
    window(pace)
    assert pace.decide(QUIET) is None
    assert pace.limit == 5


def test_locks_that_are_not_got_halve_it_and_a_single_one_does_not() -> None:
    pace = grown()
    window(pace, homes=20, missed=1)
    assert pace.decide(QUIET) is None
    window(pace, homes=97, missed=3)
    assert pace.decide(QUIET) == "3 of 100 attempts did not get their locks"
    assert pace.limit == 4


def test_homes_that_take_twice_as_long_as_at_the_start_halve_it() -> None:
    pace = grown()
    window(pace, seconds=0.019)
    assert pace.decide(QUIET) is None
    window(pace, seconds=0.021)
    assert pace.decide(QUIET) == "a home took 21 ms, not 10"
    assert pace.limit == 4


def test_homes_that_take_longer_with_few_at_a_time_are_no_reason_for_fewer() -> None:
    pace = Pace(8)
    window(pace, seconds=0.01)
    pace.limit = START
    for seconds in (0.01, 0.05):
        window(pace, seconds=seconds)
        pace.limit = START
        assert pace.decide(QUIET) is None
    assert pace.limit == START
    window(pace, seconds=0.05)
    assert pace.decide(QUIET) is None
    assert pace.limit == START + 1, "what is usual was measured anew"


def test_slow_homes_alone_leave_as_many_as_at_the_start() -> None:
    pace = grown(3)
    window(pace, seconds=1.0)
    assert pace.decide(QUIET) is not None
    assert pace.limit == START


def test_few_homes_tell_nothing_of_their_time() -> None:
    pace = grown()
    window(pace, homes=4, seconds=10.0)
    assert pace.decide(QUIET) is None


def test_a_server_without_room_halves_it_at_once_and_once_in_a_window() -> None:
    pace = grown()
    pace.exhausted()
    assert pace.limit == 4
    pace.exhausted()
    assert pace.limit == 4
    assert pace.decide(QUIET) == "the server had no room for more"
    assert pace.limit == 4
    for expected in (2, 1, 1):
        pace.exhausted()
        pace.decide(QUIET)
        assert pace.limit == expected


def test_without_a_sample_the_lane_itself_tells() -> None:
    pace = grown()
    window(pace, missed=10)
    assert pace.decide(None) is not None
    assert pace.limit == 4
