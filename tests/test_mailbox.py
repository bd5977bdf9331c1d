"""Schedules done to arrays: against Python loops that keep their own messages, and push-sum's conserved mass."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.experience import Steps
from gossamer.mixing import plan
from gossamer.runtimes.build import weigh_by
from gossamer.runtimes.mailbox import Delivery, Mailbox, PushSumMailbox, total_mass
from gossamer.runtimes.rounds import agent_key
from gossamer.runtimes.vectorised import initialise, run_chunk
from gossamer.schedules import Links, Schedule, Simulation, latency_of, link_fails
from gossamer.topologies import named
from gossamer.types import Learner
from small import Countdown, CountdownEnvironment

SIZE = 3  # parameters of an agent


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Wander:
    """An algorithm that adapts by noise: what is left of a population is who heard whom, and when."""

    def bind(self, spaces):
        return self

    def init(self, key):
        return Learner(jax.random.normal(key, (SIZE,)), (), jnp.zeros((), jnp.int32))

    def act(self, params, key, observation):
        return jnp.zeros(1), jnp.zeros(())

    def act_greedily(self, params, observation):
        return jnp.zeros(1)

    def adapt(self, learner, trajectory, key):
        params = learner.params + jax.random.normal(key, (SIZE,))
        return Learner(params, (), learner.updates + 1), {"nothing": jnp.zeros(())}

    def message(self, learner):
        return learner.params

    def absorb(self, learner, mixed):
        return learner._replace(params=mixed)


TOPOLOGIES = {"ring": 5, "star": 10, "one_peer_exponential": 8}
over_topologies = pytest.mark.parametrize("topology", TOPOLOGIES)
BUSY = {
    "link_failure": 0.3,
    "failures": "one_sided",
    "wake_probability": 0.8,
    "compute_time": "uniform:low=0.5,high=1.5",
    "latency": "uniform:low=0,high=1.5",
    "slow_agents": ((2, 2.5),),
    "absences": ((1, 3.0, 7.5), (3, 0.0, 4.2)),
    "in_flight": 15,  # enough that no message is overtaken, as the loops below assume
}


def links_of(topology):
    weights = "uniform" if topology == "one_peer_exponential" else "metropolis_hastings"
    return weigh_by(weights, named(topology, TOPOLOGIES[topology]))


def waves_of(schedule, links, seed, count):
    simulation = Simulation(schedule, links, seed=seed)
    return [simulation.wave() for _ in range(count)]


def stack(rows):
    """Deliveries ``[round, seed, ...]`` of waves listed by round and seed."""
    deliveries = [stack_one([Delivery.of(wave) for wave in row]) for row in rows]
    return stack_one(deliveries)


def stack_one(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def run(mailbox, agents, deliveries, rounds, seeds=(0,), population=None):
    tasks = Countdown(jnp.full((agents, 1), 3.0))
    seeds = jnp.array(seeds)
    environment, experience = CountdownEnvironment(), Steps(2)
    if population is None:
        population = initialise(
            Wander(),
            seeds,
            tasks,
            None if deliveries is None else mailbox,
            agents=agents,
            environment=environment,
            experience=experience,
        )
    return run_chunk(
        population,
        Wander(),
        mailbox,
        tasks,
        seeds,
        jnp.asarray(rounds, jnp.int32),
        1,
        deliveries,
        environment=environment,
        experience=experience,
        capacity=rounds,
        block=agents * len(seeds),
    )


def run_schedule(schedule, links, rounds, seeds=(0,)):
    mailbox = Mailbox.of(links, schedule.in_flight)
    mailbox = PushSumMailbox(mailbox) if schedule.rule == "push_sum" else mailbox
    by_seed = [waves_of(schedule, links, seed, rounds) for seed in seeds]
    return run(mailbox, links.agents, stack(list(zip(*by_seed, strict=True))), rounds, seeds)


@jax.jit
def noise_of(seed, agents, number):
    """What each agent adds to its parameters in a round."""

    def one(agent):
        _, adapt_key = jax.random.split(agent_key(seed, agent, number))
        return jax.random.normal(adapt_key, (SIZE,))

    return jax.vmap(one)(agents)


def initial(seed, agents):
    return [
        np.float64(Wander().init(agent_key(jnp.int32(seed), jnp.int32(i), jnp.int32(0))).params)
        for i in range(agents)
    ]


def noise(seed, agents, number):
    return np.float64(noise_of(jnp.int32(seed), jnp.arange(agents), jnp.int32(number)))


class Transport:
    """All messages ever sent over one edge: their versions, arrivals and contents."""

    def __init__(self, schedule, seed, sender, receiver):
        self.schedule, self.seed, self.ends = schedule, seed, (sender, receiver)
        self.letters, self.newest_read = {}, 0

    def write(self, version, time, content, sends):
        lost = link_fails(self.schedule, self.seed, *self.ends, version)
        arrival = time + latency_of(self.schedule, self.seed, *self.ends, version)
        away = any(
            agent == self.ends[1] and leaves <= moment < returns
            for agent, leaves, returns in self.schedule.absences
            for moment in (time, float(arrival))
        )
        arrives = sends and not lost and not away
        self.letters[int(version)] = (float(arrival) if arrives else np.inf, content)

    def newest(self, time):
        arrived = [version for version, (arrival, _) in self.letters.items() if arrival <= time]
        self.newest_read = max([*arrived, self.newest_read])
        return self.letters[self.newest_read][1]

    def posted(self):
        """What an agent that returns takes over, unfailingly."""
        self.newest_read = max(self.letters)
        return self.letters[self.newest_read][1]


def takes_over(wave, agent):
    """Whether an agent that has returned copies a neighbour: it keeps nothing of its own."""
    return wave.combines[agent] and wave.own[agent] == 0


def loop_of_averages(schedule, links, waves, seed):
    """One agent at a time, with versions read off times of arrival and never off slots."""
    agents, edges = links.agents, list(zip(links.receiver, links.sender, strict=True))
    params = initial(seed, agents)
    posts = {(i, j): Transport(schedule, seed, j, i) for i, j in edges}
    for number, wave in enumerate(waves, start=1):
        more = noise(seed, agents, number)
        for j in np.flatnonzero(wave.adapts):
            params[j] = params[j] + more[j]
            for edge, (i, sender) in enumerate(edges):
                if sender == j:
                    sends = links.weight[(wave.version[j] - 1) % links.period, edge] > 0
                    posts[i, j].write(wave.version[j], wave.adapted_at[j], params[j], sends)
        mixed = list(params)
        for i in np.flatnonzero(wave.combines):
            mixed[i] = wave.own[i] * params[i]
            for edge, (receiver, j) in enumerate(edges):
                if receiver == i and wave.weight[edge] > 0:
                    post = posts[i, j]
                    content = post.posted() if takes_over(wave, i) else post.newest(wave.combined_at[i])
                    mixed[i] = mixed[i] + wave.weight[edge] * content
        params = mixed
    return np.stack(params)


def loop_of_push_sums(schedule, links, waves, seed):
    """The same with numerators, masses and running sums, in double precision."""
    agents, edges = links.agents, list(zip(links.receiver, links.sender, strict=True))
    params = initial(seed, agents)
    holding = [np.append(x, 1.0) for x in params]
    given = [np.zeros(SIZE + 1) for _ in edges]
    letters, had = [{} for _ in edges], [np.zeros(SIZE + 1) for _ in edges]
    for number, wave in enumerate(waves, start=1):
        more = noise(seed, agents, number)
        for j in np.flatnonzero(wave.adapts):
            holding[j] = holding[j] + np.append(more[j], 0.0)
            params[j] = params[j] + more[j]
            to = [edge for edge, (_, sender) in enumerate(edges) if sender == j and wave.sent[edge]]
            holding[j] = holding[j] / (1 + len(to))
            for edge, (_, sender) in enumerate(edges):
                given[edge] = given[edge] + holding[j] if edge in to else given[edge]
                if sender == j:
                    letters[edge][int(wave.version[j])] = given[edge]
        for edge, (i, _) in enumerate(edges):
            if wave.take[edge] >= 0:
                version = max(v for v in letters[edge] if v % (schedule.in_flight + 1) == wave.take[edge])
                holding[i] = holding[i] + letters[edge][version] - had[edge]
                had[edge] = letters[edge][version]
        for i in np.flatnonzero(wave.combines):
            params[i] = holding[i][:-1] / holding[i][-1]
    return np.stack(params)


@over_topologies
@pytest.mark.parametrize("rule", ["most_recent", "all_in_peers", "whatever_arrived", "push_sum"])
def test_a_population_under_a_schedule_equals_a_loop_over_agents(topology, rule):
    links = Links.of(links_of(topology))
    staleness = 2 if rule == "most_recent" else None
    schedule = Schedule(rule, staleness=staleness, deadline=3.0, **BUSY)
    waves = waves_of(schedule, links, 4, 40)
    assert not any(wave.overtaken.any() for wave in waves)
    assert any(takes_over(wave, i) for wave in waves for i in (1, 3)) == (rule != "push_sum")
    naive = loop_of_push_sums if rule == "push_sum" else loop_of_averages
    population, _ = run_schedule(schedule, links, 40, seeds=(4,))
    expected = naive(schedule, links, waves, 4)
    # float32 sums of some forty rounds of numbers of size one
    np.testing.assert_allclose(population.learner.params[0], expected, rtol=1e-4, atol=1e-4)
    assert (Mailbox.of(links, 3).heard is None) == (topology == "star")


@over_topologies
def test_a_mailbox_in_lockstep_is_the_plain_mixer(topology):
    weights = links_of(topology)
    links = Links.of(weights)
    rows = [[wave] for wave in waves_of(Schedule(in_flight=0), links, 0, 7)]
    posted, _ = run(Mailbox.of(links, 0), links.agents, stack(rows), 7)
    plain, _ = run(plan(weights), links.agents, None, 7)
    # float32 sums in another order
    np.testing.assert_allclose(posted.learner.params, plain.learner.params, rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, posted.environments, plain.environments)


def test_seeds_under_a_schedule_equal_single_seeds():
    links = Links.of(links_of("ring"))
    schedule = Schedule("most_recent", **BUSY)
    together, _ = run_schedule(schedule, links, 12, seeds=(0, 3, 5))
    for place, seed in enumerate((0, 3, 5)):
        alone, _ = run_schedule(schedule, links, 12, seeds=(seed,))
        ours = jax.tree.map(lambda leaf, i=place: leaf[i], tuple(together)[:-1])
        theirs = jax.tree.map(lambda leaf: leaf[0], tuple(alone)[:-1])
        # float32, two programs
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), ours, theirs)


@pytest.mark.parametrize("rule", ["most_recent", "push_sum"])
def test_the_same_again_and_in_pieces_is_the_same_to_the_bit(rule):
    links = Links.of(links_of("ring"))
    schedule = Schedule(rule, **BUSY)
    rows = [[wave] for wave in waves_of(schedule, links, 0, 12)]
    mailbox = Mailbox.of(links, schedule.in_flight)
    mailbox = PushSumMailbox(mailbox) if rule == "push_sum" else mailbox
    whole, _ = run(mailbox, 5, stack(rows), 12)
    again, _ = run(mailbox, 5, stack(rows), 12)
    first, _ = run(mailbox, 5, stack(rows), 5)
    pieces, _ = run(mailbox, 5, stack(rows[5:] + rows[:5]), 7, population=first)
    for other in (again, pieces):
        jax.tree.map(np.testing.assert_array_equal, whole, other)


def test_agents_at_rest_keep_everything_to_the_bit():
    links = Links.of(links_of("ring"))
    schedule = Schedule("most_recent", **BUSY)
    mailbox, rested = Mailbox.of(links, schedule.in_flight), 0
    waves = waves_of(schedule, links, 0, 15)
    population, _ = run(mailbox, 5, stack([[waves[0]]]), 1)
    for wave in waves[1:]:
        before = jax.tree.map(np.array, population)
        population, record = run(mailbox, 5, stack([[wave]]), 1, population=population)
        rests, still = ~wave.adapts, ~wave.adapts & ~wave.combines
        rested += still.sum()
        for ours, theirs in (
            (before.environments, population.environments),
            (before.learner.updates, population.learner.updates),
        ):
            jax.tree.map(lambda x, y, r=rests: np.testing.assert_array_equal(x[0, r], y[0, r]), ours, theirs)
        np.testing.assert_array_equal(before.learner.params[0, still], population.learner.params[0, still])
        assert (population.learner.updates - before.learner.updates)[0].tolist() == wave.adapts.tolist()
        assert record.agents.updates[0, 0].tolist() == wave.adapts.tolist()
        assert record.agents.env_steps[0, 0].tolist() == (2 * wave.adapts).tolist()
    assert rested > 10


def alone(schedule, links, rounds, values, adaptation=0.0, seed=0):
    """The mailbox without learners: messages and mail after some waves, and the sum of all adaptations."""
    mailbox = Mailbox.of(links, schedule.in_flight)
    mailbox = PushSumMailbox(mailbox) if schedule.rule == "push_sum" else mailbox
    waves = waves_of(schedule, links, seed, rounds)
    deliveries = jax.tree.map(lambda *leaves: np.stack(leaves), *(Delivery.of(wave) for wave in waves))
    more = adaptation * np.random.default_rng(1).normal(size=(rounds, *values.shape)).astype(np.float32)
    more *= np.stack([wave.adapts for wave in waves])[..., None]

    def one(carry, now):
        mail, before = carry
        delivery, step = now
        return mailbox.exchange(mail, before, before + step, delivery), None

    start = (mailbox.init(jnp.asarray(values)), jnp.asarray(values))
    (mail, after), _ = jax.jit(lambda: jax.lax.scan(one, start, (deliveries, more)))()
    return mailbox, mail, np.asarray(after), np.float64(more).sum((0, 1))


@pytest.mark.parametrize("failure", [0.0, 0.1, 0.3, 0.5])
def test_push_sum_conserves_the_total(failure):
    links = Links.of(weigh_by("metropolis_hastings", named("erdos_renyi:mean_neighbourhood=4", 12)))
    schedule = Schedule(
        "push_sum",
        link_failure=failure,
        failures="one_sided",
        compute_time="uniform:low=0.5,high=1.5",
        latency="uniform:low=0,high=1",
    )
    values = np.random.default_rng(0).normal(loc=3.0, size=(12, SIZE)).astype(np.float32)
    mailbox, mass, _, adapted = alone(schedule, links, 250, values, adaptation=0.1)
    total = total_mass(mailbox, mass)
    expected = np.float64(values).sum(0) + adapted
    np.testing.assert_allclose(total["parameters"], expected, rtol=1e-6)
    np.testing.assert_allclose(total["mass"], 12.0, rtol=1e-6)
    assert (np.asarray(mass.holding["mass"]) > 0).all()


@pytest.mark.parametrize("failure", [0.0, 0.1, 0.3, 0.5])
def test_push_sum_finds_the_mean_where_rows_that_sum_to_one_drift(failure):
    links = Links.of(links_of("ring"))
    values = np.arange(5, dtype=np.float32)[:, None] * np.ones(SIZE, np.float32)
    lossy = {"link_failure": failure, "failures": "one_sided"}
    _, _, pushed, _ = alone(Schedule("push_sum", **lossy), links, 250, values)
    # float32 rounding of 250 rounds
    np.testing.assert_allclose(pushed, np.full_like(pushed, 2.0), rtol=1e-5)
    drifts = []
    for seed in range(4):
        _, _, plain, _ = alone(Schedule("whatever_arrived", **lossy), links, 250, values, seed=seed)
        assert np.ptp(plain) < 1e-4  # it agrees, but not on the mean
        drifts.append(abs(plain.mean() - 2.0))
    assert max(drifts) > 0.1 if failure else max(drifts) < 1e-4


def test_push_sum_without_loss_keeps_every_mass_one_on_a_ring():
    links = Links.of(links_of("ring"))
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    _, mass, pushed, _ = alone(Schedule("push_sum"), links, 3, values)
    np.testing.assert_allclose(mass.holding["mass"], np.ones(5), rtol=1e-6)
    uniform = np.linalg.matrix_power(links_of("ring")[0].toarray(), 3) @ values
    np.testing.assert_allclose(pushed, uniform, rtol=1e-5)
