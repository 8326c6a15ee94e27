"""The order of a fleet, and when a run stops by itself: decisions, without a database."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from control_plane.errors import ConfigurationError
from control_plane.migrator.halting import ENOUGH, WINDOW, Halting
from control_plane.migrator.plan import DueHome
from control_plane.migrator.policy import HaltPolicy, Policy, WavePolicy, read_policy
from control_plane.migrator.results import HomeResult
from control_plane.migrator.waves import make_waves, one_wave
from control_plane.registry.fleet import Place
from control_plane.registry.models import Cluster

CLUSTERS = [Cluster(id=uuid4(), name=name) for name in ("eu", "us")]


def home(isolation: str = "schema", *, cluster: int = 0, version: int = 1, pages: int = 0) -> DueHome:
    id_ = uuid4()
    place = Place(CLUSTERS[cluster], "tenants" if isolation != "database" else f"t_{id_.hex}")
    slug = None if isolation == "shared" else f"t-{id_.hex[:8]}"
    return DueHome(place, id_, isolation, f"t_{id_.hex[:12]}", version, 3, slug, 1, pages)


def fleet() -> list[DueHome]:
    """400 schema and 100 database homes on two clusters, at two versions, a few of them big, and two shared ones."""
    homes = [home(cluster=n % 2, version=1 + n % 4 // 2, pages=20_000 if n < 10 else 200) for n in range(400)]
    homes += [home("database", cluster=n % 2) for n in range(100)]
    return [*homes, home("shared"), home("shared", cluster=1)]


def test_every_home_is_in_one_wave_and_shared_homes_come_last() -> None:
    homes = fleet()
    waves = make_waves(homes, WavePolicy(), {homes[100].home_id, homes[450].home_id})
    assert [wave.name for wave in waves] == ["internal", "canary", "5%", "25%", "rest", "largest", "shared"]
    assert [wave.name for wave in waves if wave.trial] == ["internal", "canary"]
    placed = Counter(each.home_id for wave in waves for each in wave.homes)
    assert placed == Counter(each.home_id for each in homes)
    assert {each.isolation for each in waves[-1].homes} == {"shared"}
    assert all(each.isolation != "shared" for wave in waves[:-1] for each in wave.homes)


def test_canaries_are_of_each_cluster_isolation_size_and_version() -> None:
    waves = {wave.name: wave.homes for wave in make_waves(fleet(), WavePolicy(canaries=2, largest=0))}
    kinds = Counter((each.place.cluster.name, each.isolation, each.pages, each.version) for each in waves["canary"])
    assert set(kinds.values()) == {2}
    assert len(kinds) == 2 * 2 * 2 + 2  # schema homes of two sizes and versions, database homes, on two clusters


def test_shares_are_of_the_fleet_and_count_those_before_them() -> None:
    waves = {wave.name: len(wave.homes) for wave in make_waves(fleet(), WavePolicy(canaries=1, largest=0))}
    assert waves["canary"] + waves["5%"] == 25
    assert waves["canary"] + waves["5%"] + waves["25%"] == 125
    assert waves["rest"] == 375


def test_the_largest_come_late_and_are_no_canaries() -> None:
    waves = {wave.name: wave.homes for wave in make_waves(fleet(), WavePolicy(largest=0.02))}
    assert [each.pages for each in waves["largest"]] == [20_000] * 10
    assert all(each.pages < 20_000 for each in waves["canary"])


def test_the_order_is_the_same_each_time_and_has_nothing_to_do_with_age() -> None:
    homes = fleet()
    first, second = make_waves(homes, WavePolicy()), make_waves(homes[::-1], WavePolicy())
    assert [{each.home_id for each in wave.homes} for wave in first] == [
        {each.home_id for each in wave.homes} for wave in second
    ]
    quarter = next(wave for wave in first if wave.name == "25%")
    places = [homes.index(each) for each in quarter.homes]
    assert max(places) - min(places) > 300, "the oldest tenants would always go first"


def test_connections_are_kept_within_a_wave() -> None:
    for wave in make_waves(fleet(), WavePolicy()):
        names = [each.place.cluster.name for each in wave.homes]
        assert names == sorted(names)


@pytest.mark.parametrize("count", range(1, 6))
def test_a_small_fleet_has_no_empty_waves(count: int) -> None:
    homes = [home() for _ in range(count)]
    waves = make_waves(homes, WavePolicy())
    assert all(wave.homes for wave in waves)
    assert sum(len(wave.homes) for wave in waves) == count
    assert make_waves([], WavePolicy()) == []
    assert [wave.name for wave in one_wave([home(), home("shared")])] == ["named", "shared"]


def test_without_canaries_and_shares_there_are_two_waves() -> None:
    waves = make_waves(fleet(), WavePolicy(canaries=0, shares=(), largest=0))
    assert [(wave.name, len(wave.homes)) for wave in waves] == [("rest", 500), ("shared", 2)]


def outcome(status: str = "done", sqlstate: str | None = None, version: int = 1) -> HomeResult:
    return HomeResult("eu", "t", "t", UUID(int=0), "schema", version, 3, 3, status, 1, 1, sqlstate)  # type: ignore[arg-type]


def test_a_run_halts_at_a_number_of_failures() -> None:
    halting = Halting(HaltPolicy(failures=2))
    reasons = [halting.judge(each, trial=False) for each in (outcome("failed"), outcome(), outcome("failed"))]
    assert reasons == [None, None, "2 homes failed"]


def test_a_run_halts_past_a_rate_once_there_are_enough_outcomes() -> None:
    halting = Halting(HaltPolicy(rate=0.10))
    early = [halting.judge(outcome("failed"), trial=False) for _ in range(3)]
    early += [halting.judge(outcome(), trial=False) for _ in range(ENOUGH - 4)]
    assert set(early) == {None}
    assert halting.judge(outcome(), trial=False) == "15% of the latest 20 homes failed"


def test_a_rate_looks_at_the_latest_outcomes_only() -> None:
    halting = Halting(HaltPolicy(rate=0.10))
    for _ in range(10 * WINDOW):
        assert halting.judge(outcome(), trial=False) is None
    reasons = [halting.judge(outcome("failed"), trial=False) for _ in range(WINDOW // 10 + 1)]
    assert reasons[-1] is not None
    assert set(reasons[:-1]) == {None}


def test_a_rate_of_one_per_cent_of_failures_passes_five() -> None:
    halting = Halting(HaltPolicy(rate=0.05))
    outcomes = [outcome("failed" if number % 100 == 99 else "done") for number in range(1000)]
    assert {halting.judge(each, trial=False) for each in outcomes} == {None}


def test_a_script_that_no_home_of_a_trial_takes_is_wrong() -> None:
    halting = Halting(HaltPolicy())
    assert halting.judge(outcome("failed", "42703"), trial=True) is None
    assert halting.judge_trial() == "no home of the trial took the script from version 1"
    assert halting.judge(outcome("failed", "42703"), trial=True) is None
    assert halting.judge(outcome("failed", "CP003"), trial=True) is not None, "three of a kind are enough"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param(outcome(), outcome("failed", "42701"), id="a home that has drifted"),
        pytest.param(outcome("skipped"), outcome("failed", "23514"), id="a home whose rows do not fit"),
        pytest.param(outcome("skipped"), outcome("failed", "55P03"), id="a home that is in use"),
    ],
)
def test_one_home_is_no_reason_to_stop_the_others(good: HomeResult, bad: HomeResult) -> None:
    halting = Halting(HaltPolicy())
    assert [halting.judge(each, trial=True) for each in (bad, good)] == [None, None]
    assert halting.judge_trial() is None


def test_each_script_is_judged_by_itself() -> None:
    halting = Halting(HaltPolicy())
    halting.judge(outcome("done", version=2), trial=True)
    halting.judge(outcome("failed", "42703", version=1), trial=True)
    assert halting.judge_trial() == "no home of the trial took the script from version 1"


def test_a_policy_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "migrate.toml"
    file.write_text('internal = { team = "us" }\n[waves]\ncanaries = 1\nshares = [0.1]\n[halt]\nrate = 0.02\n')
    policy = read_policy(file)
    assert (policy.internal, policy.waves.canaries, policy.waves.shares) == ({"team": "us"}, 1, (0.1,))
    assert (policy.halt.rate, policy.halt.failures) == (0.02, None)
    assert read_policy(None) == Policy()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[waves]\nshares = [0.5, 0.2]", "waves: Value error, shares must rise"),
        ("[waves]\nshares = [2]", "waves.shares.0"),
        ("[wave]\ncanaries = 1", "wave: Extra inputs"),
        ("[halt]\nfailures = 0", "halt.failures"),
        ("waves", "is no TOML"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_place(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "migrate.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"migrate\.toml") as refused:
        read_policy(file)
    assert complaint in refused.value.message
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_policy(tmp_path / "absent.toml")
