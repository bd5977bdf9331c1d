import logging
import threading

import numpy as np
import pytest
from tests.stress.never_hangs import (
    AGENTS,
    ODD,
    ROUNDS,
    TOPOLOGIES,
    TROUBLES,
    WAITING,
    AlwaysOpen,
    Case,
    Walk,
    cells,
    run,
)
from tests.virtual_clock import Deadlock, VirtualClock

from gossamer.errors import InputError
from gossamer.mixing import uniform, weigh
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Envelope, Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer
from gossamer.runtimes.thread_group import AgentThreads, SharedMemoryTransport
from gossamer.schedules import Links, Schedule
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.schedules.draws import link_fails
from gossamer.topologies import named

NOBODY_WAITS = ("most_recent", "all_in_peers", "whatever_arrived")


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("gossamer").setLevel(logging.ERROR)
    yield
    logging.getLogger("gossamer").setLevel(logging.NOTSET)


@pytest.mark.parametrize(("graph", "waiting", "trouble"), cells())
def test_every_run_ends(graph, waiting, trouble):
    outcome = run(Case(graph, waiting, trouble, seed=0))
    rounds = [ROUNDS + (3 * agent if trouble == "finish_apart" else 0) for agent in range(AGENTS)]
    if trouble == "one_dies":
        rounds[ODD] = ROUNDS // 2
    if trouble == "one_late":
        # it goes on from the updates of whose parameters it takes over
        assert 0 < outcome.updates[ODD] <= ROUNDS
        rounds[ODD] = outcome.updates[ODD]
    assert outcome.updates == rounds
    assert all(combines > 0 for combines in outcome.combines)


@pytest.mark.slow
@pytest.mark.parametrize("waiting", WAITING)
def test_a_thousand_runs_end(waiting):
    for graph in TOPOLOGIES:
        for trouble in TROUBLES:
            for seed in range(16):
                run(Case(graph, waiting, trouble, seed))


def test_a_run_in_virtual_time_is_the_same_each_time():
    case = Case("complete", "staleness_1", "lossy", seed=3)
    assert run(case) == run(case)


@pytest.mark.parametrize("waiting", NOBODY_WAITS)
@pytest.mark.parametrize("graph", TOPOLOGIES)
def test_a_slow_agent_costs_the_others_nothing_where_nobody_waits(graph, waiting):
    slow = run(Case(graph, waiting, "one_slow", seed=1))
    alone = run(Case(graph, "whatever_arrived", "one_dies", seed=1))
    others = [agent for agent in range(AGENTS) if agent != ODD]
    assert [slow.ended[agent] for agent in others] == [alone.ended[agent] for agent in others]
    assert slow.ended[ODD] > 5 * max(slow.ended[agent] for agent in others)


def test_where_they_wait_it_does():
    waiting = run(Case("complete", "staleness_0", "one_slow", seed=1))
    going_on = run(Case("complete", "whatever_arrived", "one_slow", seed=1))
    others = [agent for agent in range(AGENTS) if agent != ODD]
    assert min(waiting.ended) > 2 * max(going_on.ended[agent] for agent in others)


def test_the_virtual_clock_knows_a_deadlock():
    clock = VirtualClock(1)
    changes = clock.changes()
    with changes, pytest.raises(Deadlock):
        changes.wait_for(lambda: False, until=float("inf"))


# the inbox


def envelope(sender, version, message=None):
    return Envelope(sender, version, 0.0, message or (sender, version))


def everything(held):
    return held.received


def test_a_newer_message_overwrites_an_older_one_and_never_the_other_way():
    inbox = Inbox([3, 5], MonotonicClock())
    assert inbox.put(envelope(5, 1))
    assert inbox.put(envelope(5, 4))
    assert not inbox.put(envelope(5, 2))
    held, messages = inbox.take(everything)
    assert held.version.tolist() == [0, 4]
    assert messages == [(5, 4)]


def test_a_message_that_was_combined_is_still_held_but_read():
    inbox = Inbox([3], MonotonicClock())
    inbox.put(envelope(3, 1))
    inbox.take(everything)
    held = inbox.look()
    assert (held.received.tolist(), held.unread.tolist()) == ([True], [False])
    inbox.put(envelope(3, 2))
    assert inbox.look().unread.tolist() == [True]


def test_what_was_sent_before_leaving_counts_once():
    inbox = Inbox([3], MonotonicClock())
    inbox.put(envelope(3, 7))
    inbox.leave(3)
    assert inbox.look().present.tolist() == [True]
    inbox.take(everything)
    assert inbox.look().present.tolist() == [False]


def test_whoever_is_given_up_comes_back_with_its_next_message():
    inbox = Inbox([3], MonotonicClock())
    inbox.give_up(np.array([True]))
    assert inbox.look().present.tolist() == [False]
    inbox.put(envelope(3, 1))
    assert inbox.look().present.tolist() == [True]


def test_in_lockstep_later_messages_stay_for_later():
    inbox = Inbox([3], MonotonicClock(), keep=None)
    for version in (1, 2, 3):
        inbox.put(envelope(3, version))
    assert inbox.take(everything, upto=1)[1] == [(3, 1)]
    assert inbox.look(upto=1).unread.tolist() == [False]
    assert inbox.take(everything, upto=2)[1] == [(3, 2)]
    assert [each.version for each in inbox._messages[0]] == [2, 3]  # what was read and replaced is forgotten


def test_deadlines_follow_the_gaps():
    patience = AdaptiveTimeout(deviations=4.0, least=0.0, first=60.0)
    assert patience.deadline([1.0] * 7) == 60.0
    assert patience.deadline([1.0] * 8) == 1.0
    assert patience.deadline([1.0, 2.0, 3.0] * 3) == 2.0 + 4.0 * 1.0
    assert AdaptiveTimeout(least=5.0).deadline([0.1] * 8) == 5.0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"deviations": -1.0}, "deviations is -1.0"),
        ({"least": -0.5}, "least is -0.5"),
        ({"first": 0.0}, "first is 0.0"),
    ],
)
def test_bad_patience_is_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        AdaptiveTimeout(**values)


# one agent


def one_peer(schedule, lockstep=False, graph="directed_ring", agents=3, patience=None, agent=0):
    links = Links.of(weigh(named(graph, agents), uniform))
    neighbourhood = Neighbourhood.of(links, agent)
    clock = VirtualClock(1)
    inboxes = [
        Inbox(Neighbourhood.of(links, i).senders, clock, None if lockstep else 1) for i in range(agents)
    ]
    post = SharedMemoryTransport(links, inboxes, schedule, seed=0)
    part = Walk(agent, clock, seed=0)
    patience = None if patience == "none" else patience or AdaptiveTimeout(first=5.0)
    peer = Peer(neighbourhood, part, inboxes[agent], post, clock, schedule, patience, lockstep)
    return peer, inboxes, clock


def updates_of(peer, rounds=2, learner=0.0, done=0):
    return list(peer.rounds(learner, done, rounds, AlwaysOpen()))


def test_all_in_peers_combines_only_if_all_have_sent():
    peer, inboxes, _ = one_peer(Schedule("all_in_peers"), graph="complete")
    inboxes[0].put(envelope(1, 1, 100.0))
    first, second = updates_of(peer)
    assert len(first[0].ages) == len(second[0].ages) == 0
    assert abs(second[1]) < 10
    peer, inboxes, _ = one_peer(Schedule("all_in_peers"), graph="complete")
    inboxes[0].put(envelope(1, 1, 300.0))
    inboxes[0].put(envelope(2, 1, 300.0))
    first, second = updates_of(peer)
    assert len(first[0].ages) == 2
    assert first[1] == pytest.approx(200, abs=2)
    assert len(second[0].ages) == 0  # both were consumed


def test_whatever_arrived_gives_missing_weight_to_self():
    peer, inboxes, _ = one_peer(Schedule("whatever_arrived"), graph="complete")
    inboxes[0].put(envelope(1, 1, 300.0))
    first, second = updates_of(peer)
    assert first[1] == pytest.approx(100, abs=2)
    assert second[1] == pytest.approx(100, abs=4)


def test_most_recent_keeps_using_a_message():
    peer, inboxes, _ = one_peer(Schedule("most_recent"))
    inboxes[0].put(envelope(2, 1, 100.0))
    (first, learner), (second, after) = updates_of(peer)
    assert (first.ages.tolist(), second.ages.tolist()) == ([0], [1])
    assert learner == pytest.approx(50, abs=2)
    assert after == pytest.approx(75, abs=2)


def test_a_wait_ends_at_its_deadline_and_the_line_names_the_edge(caplog):
    logging.getLogger("gossamer").setLevel(logging.NOTSET)
    peer, _, clock = one_peer(Schedule("most_recent", staleness=1), patience=AdaptiveTimeout(first=5.0))
    updates = updates_of(peer, rounds=6)
    # waits once, at its second update; after that agent 2 is given up
    assert [update.expired for update, _ in updates] == [0, 1, 0, 0, 0, 0]
    assert updates[1][0].waited == pytest.approx(5.0)
    assert clock.now() < 6 * 1.5 + 5.1
    assert [record.getMessage() for record in caplog.records] == [
        "agent 0 got no message of agent 2 within 1 updates of its own update 2 in time (1 times so far); its weight "
        "returns to self until it is heard of again"
    ]


def test_of_repeated_lines_only_some_are_said(caplog):
    logging.getLogger("gossamer").setLevel(logging.NOTSET)
    peer, _, _ = one_peer(Schedule("most_recent", staleness=0), patience=AdaptiveTimeout(first=5.0))
    for _ in range(5):
        peer._say_missing(np.array([True]), "now")
    times = [record.getMessage().split("(")[1].split(" ")[0] for record in caplog.records]
    assert times == ["1", "2", "4"]


def test_whoever_ends_tells_its_peers():
    peer, inboxes, _ = one_peer(Schedule("whatever_arrived"))
    updates_of(peer)
    assert inboxes[1].look().left.tolist() == [True]


def test_nobody_waits_for_a_peer_that_has_left():
    peer, inboxes, clock = one_peer(
        Schedule("most_recent", staleness=1), patience=AdaptiveTimeout(first=50.0)
    )
    inboxes[0].put(envelope(2, 1, 7.0))
    inboxes[0].leave(2)
    updates_of(peer, rounds=5)
    assert clock.now() < 5 * 1.5


def test_a_message_that_is_there_is_not_missed_because_it_is_the_only_one():
    peer, inboxes, _ = one_peer(Schedule("all_in_peers"), patience=AdaptiveTimeout(least=0.0, first=0.1))
    inboxes[0].put(envelope(2, 1, 100.0))
    first, _ = updates_of(peer)
    assert len(first[0].ages) == 1


def test_standing_still_is_no_gap():
    clock = VirtualClock(1)
    inbox = Inbox([3], clock)
    for version in range(1, 12):
        inbox.put(envelope(3, version))
        clock.sleep(1.0)
    clock.sleep(100.0)
    inbox.go_on()
    assert not inbox.overdue(AdaptiveTimeout(least=0.0)).any()
    inbox.put(envelope(3, 20))
    assert inbox.deadline(AdaptiveTimeout(least=0.0), np.array([True])) == clock.now() + 1.0


def test_in_step_within_a_process_there_is_no_deadline():
    """Only a gate that hurries ends the wait; with nobody to do so it is a deadlock."""
    peer, _, _ = one_peer(Schedule("most_recent", staleness=0), lockstep=True, patience="none")
    with pytest.raises(Deadlock):
        updates_of(peer)


def test_a_late_joiner_takes_over_the_newest_parameters():
    peer, inboxes, _ = one_peer(Schedule("whatever_arrived"), graph="complete")
    inboxes[0].put(envelope(1, 4, 11.0))
    inboxes[0].put(envelope(2, 9, 22.0))
    assert peer.take_over(0.0, 0) == (22.0, 9)
    alone, _, _ = one_peer(Schedule("whatever_arrived"))
    assert alone.take_over(3.0, 0) == (3.0, 0)


def test_lost_messages_do_not_arrive_and_are_counted():
    peer, inboxes, _ = one_peer(Schedule("whatever_arrived", link_failure=0.5))
    versions = np.arange(1, 41)
    fails = link_fails(Schedule(link_failure=0.5), 0, 0, 1, versions)
    last = int(versions[fails].max())  # a message that does not arrive is the last one
    updates = [update for update, _ in updates_of(peer, rounds=last)]
    assert [bool(update.lost) for update in updates] == fails[:last].tolist()
    assert 10 < fails.sum() < 30
    assert sum(update.sent for update in updates) == last
    assert int(inboxes[1].look().version[0]) == versions[:last][~fails[:last]].max()


def test_nothing_is_sent_to_those_who_have_left():
    peer, inboxes, _ = one_peer(Schedule())
    peer._post.leave(1)
    assert [update.sent for update, _ in updates_of(peer)] == [0, 0]
    assert not inboxes[1].look().received.any()


# the crew


def test_nobody_runs_far_ahead_of_who_gathers():
    with crew(counter(0, 10**6), counter(1, 10**6)) as both:
        both.open(10**6)
        next(both.gather(1))
        waiting = both.stand_still()
        assert len(waiting) <= 2 * (4 + 1)


def counter(agent, rounds, error_at=None):
    def count(gate):
        done = 0
        while done < rounds and gate.enter(done):
            if done == error_at:
                raise ValueError(f"agent {agent} failed")
            done += 1
            yield update_of(agent, done), done

    return count


def update_of(agent, version):
    from gossamer.runtimes.peer import Update

    return Update(agent, version, None, 0, 0, np.array([], int), 0, 0.0)


def crew(*work):
    return AgentThreads(work, wake=lambda: None, release=lambda: None)


def test_the_gate_holds_everybody_at_the_limit():
    with crew(counter(0, 10), counter(1, 10)) as both:
        both.open(3)
        assert sorted(h.update.version for h in both.gather(6)) == [1, 1, 2, 2, 3, 3]
        assert both.stand_still() == []
        both.open(10)
        assert len(list(both.gather(100))) == 14


def test_standing_still_gathers_what_came_meanwhile():
    with crew(counter(0, 10**6), counter(1, 10**6)) as both:
        both.open(10**6)
        first = list(both.gather(10))
        more = both.stand_still()
        versions = [h.update.version for h in first + more if h.update.agent == 0]
        assert versions == list(range(1, len(versions) + 1))
        assert both.stand_still() == []
        both.open(10**6)
        assert len(list(both.gather(10))) == 10


def test_the_failure_of_one_worker_ends_all_and_comes_to_light():
    before = threading.active_count()
    with crew(counter(0, 10**9), counter(1, 10, error_at=5)) as both:
        both.open(10**9)
        with pytest.raises(ValueError, match="agent 1 failed"):
            list(both.gather(10**9))
    assert threading.active_count() == before


def test_a_crew_that_never_began_can_be_closed():
    with crew(counter(0, 3)):
        pass


def test_neighbourhoods_change_with_the_phase():
    links = Links.of(weigh(named("one_peer_exponential", 4), uniform))
    neighbourhood = Neighbourhood.of(links, 0)
    assert neighbourhood.senders == (2, 3)
    assert neighbourhood.weights(1)[0].tolist() == [0.0, 0.5]
    assert neighbourhood.weights(2)[0].tolist() == [0.5, 0.0]
    assert neighbourhood.weights(3)[0].tolist() == [0.0, 0.5]
