"""What the benchmark of scale makes of its assumptions, with few agents and against the book; nothing is timed here."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks import scale

from gossamer.mixing import uniform, weigh
from gossamer.schedules import Links, Schedule, Simulation
from gossamer.topologies import named

WORK = scale.Work("none", seconds=0.01, spread=0.2, message_bytes=20_000)
CENTRE, HOME, LOW_ORBIT, GEOSTATIONARY = scale.SETTINGS
NETS = {net.name: net for net in scale.NETS}


@pytest.fixture
def short(monkeypatch):
    """Few rounds, where they suffice."""
    monkeypatch.setattr(scale, "LENGTHS", {"lockstep": (1, 3), "never": (2, 6)})
    monkeypatch.setattr(scale, "SLOW_LENGTHS", (8, 20))


def dense_walk(schedule: Schedule, links: Links, waves: int, seed: int) -> list[tuple[float, float]]:
    """As ``scale.walk``, with every message that was ever sent and a full matrix of weights."""
    simulation, agents = Simulation(schedule, links, seed), links.agents
    place = np.zeros((agents, scale.DIMENSIONS + 1))
    sent: list[dict[int, np.ndarray]] = [{} for _ in range(agents)]
    newest = np.zeros((agents, agents), int)
    moments = []
    for number in range(waves):
        wave = simulation.wave()
        place = place + wave.adapts[:, None] * scale.steps(seed, number, agents)
        for agent in np.flatnonzero(wave.adapts):
            sent[agent][int(wave.version[agent])] = place[agent]
        W, messages = np.diag(wave.own), np.zeros((agents, agents, place.shape[1]))
        messages[range(agents), range(agents)] = place
        for edge, (i, j) in enumerate(zip(links.receiver, links.sender, strict=True)):
            if wave.take[edge] >= 0:
                slots = schedule.in_flight + 1
                newest[i, j] = max(version for version in sent[j] if version % slots == wave.take[edge])
            if wave.age[edge] >= 0:
                assert wave.age[edge] == max(wave.version[i] - newest[i, j], 0)
                W[i, j], messages[i, j] = wave.weight[edge], sent[j][newest[i, j]]
        place = np.einsum("ij,ijd->id", W, messages)
        apart = place[:, :-1] - place[:, :-1].mean(0)
        moments.append((float(np.sqrt((apart**2).sum(1).mean())), float(place[:, -1].mean())))
    return moments


@pytest.mark.parametrize("setting", [CENTRE, GEOSTATIONARY], ids=lambda setting: setting.name)
@pytest.mark.parametrize("name", ["ring", "exponential", "one-peer exponential"])
def test_walks_are_those_of_a_dense_loop(name, setting):
    links = NETS[name].links(9)
    schedule = scale.schedule_of(WORK, setting, links, "never")
    moments = list(scale.walk(schedule, links, 20, seed=3))
    naive = dense_walk(schedule, links, len(moments), seed=3)
    # float32 beside float64, over some twenty rounds
    np.testing.assert_allclose([(each.distance, each.mean) for each in moments], naive, rtol=1e-5)


@pytest.mark.parametrize("name", ["ring", "torus", "exponential", "one-peer exponential"])
def test_the_limit_on_paper_is_where_the_covariance_of_all_agents_ends(name):
    agents, net = 12, NETS[name]
    phases = [W.toarray() for W in weigh(named(net.topology, agents), uniform)]
    apart = np.eye(agents) - 1 / agents
    covariance, variances = np.zeros((agents, agents)), []
    for round_ in range(600):
        W = phases[round_ % len(phases)]
        covariance = W @ (covariance + np.eye(agents)) @ W.T
        variances.append(np.trace(apart @ covariance @ apart) / agents)
    at_ends = np.sqrt(variances[len(phases) - 1 :: len(phases)])
    limit = scale.limit_of(net, agents)
    assert limit.distance == pytest.approx(np.sqrt(np.mean(variances[-len(phases) :])), rel=1e-9)
    assert limit.rounds == len(phases) * (1 + int(np.argmax(at_ends >= 0.95 * at_ends[-1])))


def test_of_a_random_graph_nothing_is_known_on_paper():
    assert scale.limit_of(NETS["random 4-regular"], 12) is None


def test_a_walk_in_lockstep_ends_where_paper_says():
    links, limit = NETS["torus"].links(36), scale.limit_of(NETS["torus"], 36)
    walked = scale.summarise(list(scale.walk(scale.LOCKSTEP, links, 400, seed=0)))
    assert walked["distance"] == pytest.approx(limit.distance, rel=0.05)  # of 100 rounds' noise
    assert walked["progress"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("setting", [CENTRE, GEOSTATIONARY], ids=lambda setting: setting.name)
def test_old_messages_slow_progress_as_on_paper_and_not_that_of_push_sum(setting):
    def progress_of(name):
        links = NETS[name].links(20)
        schedule = scale.schedule_of(WORK, setting, links, "never", NETS[name].rule)
        walked = scale.summarise(list(scale.walk(schedule, links, 80, seed=0)))
        return walked["progress"], scale.pace_of(schedule, links, 0, 10, 30).progress

    walked, on_paper = progress_of("random 4-regular")
    assert walked == pytest.approx(on_paper, rel=0.06)  # the mean of ages that vary
    assert walked < 0.7
    assert progress_of("random 4-regular, push-sum")[0] == pytest.approx(1, abs=0.1)


def test_what_an_agent_sends_depends_on_its_neighbours_and_not_on_how_many_agents_there_are(short):
    rows = scale.pace_table([(WORK, scale.RING), (WORK, NETS["exponential"])], [8, 32], seed=0)

    def sent(net, agents):
        (found,) = {row["bytes_per_round"] for row in rows if (row["net"], row["agents"]) == (net, agents)}
        return found

    assert sent("ring", 8) == sent("ring", 32) == 2 * WORK.message_bytes
    assert sent("exponential", 8) == 3 * WORK.message_bytes
    assert sent("exponential", 32) == 5 * WORK.message_bytes


@pytest.mark.parametrize("waiting", scale.WAITING)
def test_slower_uplinks_give_fewer_rounds(waiting):
    links = scale.RING.links(8)

    def rounds(uplink):
        schedule = scale.schedule_of(WORK, replace(HOME, uplink=uplink), links, waiting)
        return scale.pace_of(schedule, links, 0, 4, 20).rounds_per_hour

    fast, slow, slower = rounds(1e9), rounds(1e6), rounds(1e5)
    assert fast > 2 * slow
    assert slow > 2 * slower


def test_nobody_that_does_not_wait_sends_more_than_its_uplink_takes():
    links = scale.RING.links(8)
    for setting in (HOME, LOW_ORBIT, GEOSTATIONARY):
        schedule = scale.schedule_of(replace(WORK, spread=0.5), setting, links, "never")
        pace = scale.pace_of(schedule, links, 0, 10, 100)
        bits = 8 * pace.messages_per_round * WORK.message_bytes * pace.rounds_per_hour / scale.HOUR
        assert bits == pytest.approx(setting.uplink, rel=0.05)  # of 800 rounds whose lengths vary by half


def test_in_lockstep_every_message_is_of_its_round_and_comes():
    links = NETS["one-peer exponential"].links(12)
    schedule = scale.schedule_of(WORK, HOME, links, "lockstep")
    pace = scale.pace_of(schedule, links, 0, 4, 40)
    assert (pace.age_rounds, pace.progress) == (0, 1)
    assert pace.rounds_per_hour > scale.HOUR / (1 + 12 * HOME.latency[1])  # nobody waits for the deadline


def test_ages_are_told_in_rounds_and_in_seconds():
    # Everybody adapts every second, and a message takes two and a half: three rounds.
    schedule = Schedule(rule="most_recent", latency="constant:value=2.5")
    pace = scale.pace_of(schedule, scale.RING.links(6), 0, 10, 10)
    assert (pace.age_rounds, pace.age_seconds, pace.age_seconds_95) == (3, 3, 3)
    assert pace.rounds_per_hour == pytest.approx(3600)
    assert pace.progress == pytest.approx(1 / 3)


def test_tables_and_picture_of_few_agents(short, capsys):
    walks = scale.walk_table(WORK, [scale.RING], [9], seed=0, shorter=20)
    result = {
        "settings": [{"name": setting.name} for setting in scale.SETTINGS],
        "work": [{"recipe": "none", "seconds": 0.01, "spread": 0.2, "message_bytes": 20_000}],
        "pace": scale.pace_table([(WORK, scale.RING)], [9], seed=0),
        "beside_slow_agents": [{"waiting": "never", "agents": 9, "rounds_per_hour": 9.0, "kept": 0.99}],
        "walks": walks,
        "simulation_cost": scale.cost_table(walks),
    }
    scale.print_tables(result)
    printed = capsys.readouterr().out
    (row,) = [
        row for row in result["pace"] if (row["setting"], row["waiting"]) == (GEOSTATIONARY.name, "lockstep")
    ]
    line = next(line for line in printed.splitlines() if f"ring, {GEOSTATIONARY.name}, lockstep" in line)
    assert line.split()[-1] == f"{row['rounds_per_hour']:,.0f}"
    assert "99%" in printed
    assert len(scale.picture(result).subfigs) == 2


def test_a_slow_agent_holds_all_back_in_lockstep_only(short, monkeypatch):
    monkeypatch.setattr(scale, "SLOW_SHARE", 8)
    kept = {row["waiting"]: row["kept"] for row in scale.slow_table(WORK, [8], seed=0)}
    assert kept["lockstep"] < 0.2
    assert kept["never"] > 0.85
