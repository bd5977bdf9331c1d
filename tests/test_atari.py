"""Atari: against ale-py's own environment and emulator stepped by hand, and what ale-py leaves to a wrapper."""

import sys
import weakref

import ale_py
import jax.numpy as jnp
import numpy as np
import pytest
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv

from gossamer.environments import Atari, AtariTask, HostEnvironment, Pixels, spaces_of
from gossamer.errors import InputError
from gossamer.experience.host import HostSteps
from gossamer.runs.serialization import dumps, loads
from gossamer.types import Discrete, Frames, Spaces

EVERY = np.ones(1, bool)
ACTIONS = {"beam_rider": 9, "breakout": 4, "pong": 6, "qbert": 6, "seaquest": 18, "space_invaders": 6}
FIRE, PICTURE = 1, 84 * 84


def streams(count, seed=0, agent=0):
    return np.array([[seed, agent, env] for env in range(count)])


def start(environment, count=1, **where):
    return environment.simulate(AtariTask(np.zeros(count)), streams(count, **where))


def whole_games(name, **changes):
    """As ale-py plays them: nothing happens where a life is lost."""
    plain = {"fire_on_life_loss": False, "clear_stack_on_life_loss": False, "lives_are_episodes": False}
    return Atari(name, **{**plain, **changes})


def draw(environment, steps, simulators=1, seed=0):
    return np.random.default_rng(seed).integers(environment.action_space.size, size=(steps, simulators))


@pytest.fixture
def resets(monkeypatch):
    """Seed and opening, in frames, of every game that is started from now on."""
    seen, reset = [], AtariVectorEnv.reset

    def spy(self, *, seed=None, options=None):
        observation, facts = reset(self, seed=seed, options=options)
        seen.append((seed, int(facts["episode_frame_number"][0])))
        return observation, facts

    monkeypatch.setattr(AtariVectorEnv, "reset", spy)
    return seen


@pytest.fixture
def emulators(monkeypatch):
    """Weak references to every AtariVectorEnv made from now on."""
    made, init = [], AtariVectorEnv.__init__

    def spy(self, *arguments, **more):
        init(self, *arguments, **more)
        made.append(weakref.ref(self))

    monkeypatch.setattr(AtariVectorEnv, "__init__", spy)
    return made


class Console:
    """The emulator itself, brought to where a simulator stands after its opening."""

    def __init__(self, name, opening):
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(roms.get_rom_path(name))
        self.buttons = self.ale.getMinimalActionSet()
        for frame in range(opening):
            self.ale.act(self.buttons[FIRE] if frame == 0 else self.buttons[0])

    def hold(self, action):
        """An action for four frames: what it earned, whether a life was lost, and whether the game is over."""
        before, earned = self.ale.lives(), 0
        screens = []
        for _ in range(4):
            earned += self.ale.act(self.buttons[action])
            if self.ale.game_over():
                break
            screens.append(self.ale.getScreenRGB())
        self.seen = np.max(screens[-2:], axis=0) if screens else None
        over = self.ale.game_over()
        return earned, 0 < self.ale.lives() < before and not over, over


def opening_of(resets):
    return resets[-1][1]


@pytest.mark.parametrize("name", ["breakout", "pong", "seaquest"])
def test_games_equal_ale_pys_vectorised_ones(name, resets):
    environment = whole_games(name)
    simulators, every = start(environment, 3), np.ones(3, bool)
    observation = simulators.reset(every)
    seeds = np.array([seed for seed, _ in resets])
    book = AtariVectorEnv(name, 3, num_threads=1, noop_max=31, reward_clipping=False)
    np.testing.assert_array_equal(observation, book.reset(seed=seeds)[0].reshape(3, -1))
    for action in draw(environment, 250, 3):
        step = simulators.step(action, every)
        seen, reward, over, truncated, _ = book.step(action)
        np.testing.assert_array_equal(step.observation, seen.reshape(3, -1))
        np.testing.assert_array_equal(step.reward, reward)
        np.testing.assert_array_equal([step.terminated, step.finished], [over, over])
        np.testing.assert_array_equal([step.truncated, truncated], False)
        if over.any():
            again = book.reset(options={"reset_mask": over})[0].reshape(3, -1)
            np.testing.assert_array_equal(simulators.reset(over)[over], again[over])


@pytest.mark.parametrize("name", ["breakout", "qbert", "space_invaders"])
@pytest.mark.parametrize("fire", [True, False])
def test_lives_and_points_equal_the_emulators(name, fire, resets):
    environment = Atari(name, fire_on_life_loss=fire)
    simulators = start(environment, seed=3)
    simulators.reset(EVERY)
    console, lives, games, points = Console(name, opening_of(resets)), 0, 0, set()
    for (action,) in draw(environment, 800, seed=1):
        step = simulators.step(np.array([action]), EVERY)
        earned, lost, over = console.hold(action)
        if lost and fire:
            more, _, over = console.hold(FIRE)
            earned += more
        assert (step.reward[0], step.terminated[0]) == (earned, lost or over)
        assert (step.finished[0], step.truncated[0]) == (over, False)
        lives, games = lives + lost, games + over
        points.add(earned)
        if step.terminated[0]:
            simulators.reset(EVERY)
            console = Console(name, opening_of(resets)) if over else console
    assert games >= 1
    assert lives >= 2 * games
    assert name == "breakout" or max(points) > 1  # not clipped


def until_a_life_is_lost(simulators, environment, seed=0):
    for action in draw(environment, 1000, seed=seed):
        step = simulators.step(action, EVERY)
        if step.terminated[0] and not step.finished[0]:
            return step
    raise AssertionError("no life was lost")


@pytest.mark.parametrize("fire", [True, False])
@pytest.mark.parametrize("clear", [True, False])
def test_a_new_life_sees_what_it_is_to_see(fire, clear):
    chosen = {"fire_on_life_loss": fire, "clear_stack_on_life_loss": clear}
    simulators = start(Atari("breakout", **chosen))
    simulators.reset(EVERY)
    step = until_a_life_is_lost(simulators, Atari("breakout"))
    old, new = step.observation[0].reshape(4, -1), simulators.reset(EVERY)[0].reshape(4, -1)
    assert old.any(1).all()  # the last observation of a life is whole
    if fire:  # one picture on
        np.testing.assert_array_equal(new[2], 0 if clear else old[3])
    else:
        np.testing.assert_array_equal(new[3], old[3])
    for pictures in range(1, 6):
        assert new.any(1).tolist() == [not clear or 4 - row <= pictures for row in range(4)]
        previous, new = new, simulators.step(np.array([0]), EVERY).observation[0].reshape(4, -1)
        np.testing.assert_array_equal(new[2], previous[3])


def test_without_fire_breakout_stands_still_after_a_life_was_lost():
    """The ball is not served: all pictures of the next life are alike."""
    pictures = {}
    for fire in (True, False):
        simulators = start(Atari("breakout", fire_on_life_loss=fire))
        simulators.reset(EVERY)
        until_a_life_is_lost(simulators, Atari("breakout"))
        simulators.reset(EVERY)
        seen = [simulators.step(np.array([0]), EVERY).observation[0, -PICTURE:] for _ in range(20)]
        pictures[fire] = len(np.unique(seen, axis=0))
    assert pictures[False] == 1
    assert pictures[True] > 10


class Scripted:
    """An AtariVectorEnv of one game: (points, lives, over) of each action; a picture is as bright as its number."""

    script, running, most = (), 0, 0

    def __init__(self, *_, **__):
        self.coming, self.now, self.pressed = list(Scripted.script), 0, []

    def reset(self, *, seed):
        return self._seen(), {"lives": np.array([3])}

    def send(self, actions):
        Scripted.running += 1
        Scripted.most = max(Scripted.most, Scripted.running)
        self.pressed.append(int(actions[0]))

    def recv(self):
        Scripted.running -= 1
        self.now += 1
        points, lives, over = self.coming.pop(0)
        return (
            self._seen(),
            np.array([points]),
            np.array([over]),
            np.array([False]),
            {"lives": np.array([lives])},
        )

    def _seen(self):
        return np.full((1, 4, 84, 84), self.now, np.uint8)


@pytest.fixture
def scripted(monkeypatch):
    assert Atari("breakout").action_space.size == 4  # asked of ale-py, and remembered
    monkeypatch.setattr("ale_py.vector_env.AtariVectorEnv", Scripted)
    monkeypatch.setattr(Scripted, "most", 0)
    return lambda *script: monkeypatch.setattr(Scripted, "script", script)


@pytest.mark.parametrize("episodes", [True, False])
def test_what_fire_earns_belongs_to_the_life_before(scripted, episodes):
    scripted((1, 3, False), (2, 2, False), (40, 2, False), (3, 2, False))
    simulators = start(Atari("breakout", lives_are_episodes=episodes))
    simulators.reset(EVERY)
    rewards, ends, seen = [], [], []
    for _ in range(3):
        step = simulators.step(np.zeros(1, int), EVERY)
        rewards.append(step.reward[0])
        ends.append(step.terminated[0])
        seen.append(step.observation[0, -1])
        if step.terminated[0]:
            seen.append(simulators.reset(EVERY)[0, -1])
    assert rewards == [1, 42, 3]
    assert ends == [False, episodes, False]
    assert seen == ([1, 2, 3, 4] if episodes else [1, 3, 4])
    assert simulators._games[0].pressed == [0, 0, FIRE, 0]


@pytest.mark.parametrize("episodes", [True, False])
def test_a_game_that_fire_ends_is_over_with_the_life_before(scripted, episodes):
    scripted((2, 1, False), (5, 0, True))
    simulators = start(Atari("breakout", lives_are_episodes=episodes))
    simulators.reset(EVERY)
    step = simulators.step(np.zeros(1, int), EVERY)
    assert (step.reward[0], step.terminated[0], step.truncated[0], step.finished[0]) == (7, True, False, True)
    assert simulators.reset(EVERY)[0, 0] == 2  # all of the stack: a new game


@pytest.mark.parametrize("threads", [1, 3, 9])
def test_no_more_games_run_at_once_than_there_are_threads(scripted, threads):
    scripted(*[(0, 3, False)] * 3)
    simulators, which = start(Atari("breakout", threads), 6), np.arange(6) != 2
    simulators.reset(np.ones(6, bool))
    for _ in range(3):
        simulators.step(np.arange(6) % 4, which)
    assert Scripted.most == min(threads, 5)
    assert Scripted.running == 0
    assert [game.pressed for game in simulators._games] == [[0] * 3, [1] * 3, [], [3] * 3, [0] * 3, [1] * 3]


def test_where_lives_are_no_episodes_the_game_goes_on_in_the_same_step():
    split, whole = start(Atari("breakout")), start(Atari("breakout", lives_are_episodes=False))
    np.testing.assert_array_equal(split.reset(EVERY), whole.reset(EVERY))
    lost, over = 0, False
    for action in draw(Atari("breakout"), 1000):
        one, other = split.step(action, EVERY), whole.step(action, EVERY)
        assert one.reward == other.reward
        over = bool(other.finished[0])
        assert over == one.finished[0] == other.terminated[0]
        if over:
            break
        lost += one.terminated[0]
        seen = split.reset(EVERY) if one.terminated[0] else one.observation
        np.testing.assert_array_equal(seen, other.observation)
    assert over
    assert lost == 4


def test_returns_are_those_of_whole_games():
    environment = Atari("breakout", most_noops=5)
    actions, tasks = draw(environment, 600, 2), AtariTask(np.zeros((1, 2)))
    simulators, every = start(environment, 2), np.ones(2, bool)
    simulators.reset(every)
    earned, returns, lengths, elapsed, ends = np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2), 0
    for action in actions:
        step = simulators.step(action, every)
        earned, elapsed = earned + step.reward, elapsed + 1
        returns += earned * step.finished
        lengths += elapsed * step.finished
        earned, elapsed = earned * ~step.finished, elapsed * ~step.finished
        ends += int(step.terminated.sum())
        if step.terminated.any():
            simulators.reset(step.terminated)
    steps = HostSteps(environment, len(actions), tasks, streams(2)[None, None])
    steps.start()
    collected = steps.collect(
        lambda step, seen, _: (jnp.array(actions[step][None, None]), jnp.zeros((1, 1, 2)), ())
    )
    np.testing.assert_array_equal(collected.finished.returns[0, 0], returns)
    np.testing.assert_array_equal(collected.finished.lengths[0, 0], lengths)
    assert collected.finished.returns.sum() > 0
    assert collected.trajectory.terminated.sum() == ends > collected.finished.episodes.sum() >= 2
    assert collected.trajectory.observation.dtype == np.uint8
    steps.close()


def test_a_game_is_truncated_at_the_limit_and_shows_its_last_picture():
    """ale-py's own limit would leave out the last frame."""
    limited, endless = start(Atari("pong", max_frames=43)), start(Atari("pong"))
    np.testing.assert_array_equal(limited.reset(EVERY), endless.reset(EVERY))
    for game in range(2):
        for number, action in enumerate(draw(Atari("pong"), 10, seed=game), start=1):
            step, other = limited.step(action, EVERY), endless.step(action, EVERY)
            np.testing.assert_array_equal(step.observation, other.observation)
            assert (step.truncated[0], step.finished[0]) == (number == 10, number == 10)
            assert not step.terminated[0]
        np.testing.assert_array_equal(limited.reset(EVERY), endless.reset(EVERY))


def test_a_life_lost_at_the_limit_ends_the_game(resets):
    actions = draw(Atari("breakout"), 1000)
    simulators = start(Atari("breakout"))
    simulators.reset(EVERY)
    steps = next(n for n, action in enumerate(actions, 1) if simulators.step(action, EVERY).terminated[0])
    simulators = start(Atari("breakout", max_frames=4 * steps))
    simulators.reset(EVERY)
    for action in actions[:steps]:
        step = simulators.step(action, EVERY)
    assert (step.terminated[0], step.truncated[0], step.finished[0]) == (True, False, True)
    before = len(resets)
    simulators.reset(EVERY)
    assert len(resets) == before + 1


@pytest.mark.parametrize(
    ("name", "most", "frames"),
    [("pong", 8, range(1, 9)), ("freeway", 8, range(9)), ("pong", 0, [1]), ("freeway", 0, [0])],
)
def test_openings_are_drawn_from_all_lengths_up_to_the_most(name, most, frames, resets):
    """Of the games here only Freeway has no FIRE, which is the first frame elsewhere."""
    simulators = start(Atari(name, most_noops=most))
    for _ in range(150):
        simulators.reset(EVERY)
    assert {opening for _, opening in resets} == set(frames)


def test_thirty_frames_are_the_most_by_default(resets):
    simulators = start(Atari("pong"))
    for _ in range(250):
        simulators.reset(EVERY)
    openings = [opening for _, opening in resets]
    assert (min(openings), max(openings)) == (1, 30)


def test_streams_are_reproducible_and_distinct(resets):
    environment = Atari("breakout", most_noops=5)
    played = []
    for threads in (1, 1, 3):
        simulators = start(Atari("breakout", threads, most_noops=5), 4, seed=1, agent=2)
        seen, every = [simulators.reset(np.ones(4, bool))], np.ones(4, bool)
        for action in draw(environment, 100, 4):
            step = simulators.step(action, every)
            seen.append(step.observation)
            if step.terminated.any():
                seen.append(simulators.reset(step.terminated) * step.terminated[:, None])
        played.append(np.stack(seen))
    np.testing.assert_array_equal(played[0], played[1])
    np.testing.assert_array_equal(played[0], played[2])
    resets.clear()
    for seed in range(2):
        for agent in range(2):
            simulators = start(environment, 2, seed=seed, agent=agent)
            simulators.reset(np.ones(2, bool))
            simulators.reset(np.ones(2, bool))
    seeds = [seed for seed, _ in resets]
    assert seeds.count(None) == 8  # seeded once
    assert len({seed for seed in seeds if seed is not None}) == 8
    assert all(0 <= seed < 2**31 for seed in seeds if seed is not None)


def test_masked_simulators_stand_still():
    environment = Atari("breakout")
    simulators, alone = start(environment, 3), start(environment, 3)
    every = np.ones(3, bool)
    np.testing.assert_array_equal(simulators.reset(every), alone.reset(every))
    for action in draw(environment, 30, 3):
        simulators.step(action, np.array([True, False, True]))
    simulators.reset(np.array([True, False, False]))
    (action,) = draw(environment, 1, 3, seed=1)
    one, other = simulators.step(action, every), alone.step(action, every)
    np.testing.assert_array_equal(one.observation[1], other.observation[1])
    assert not np.array_equal(one.observation[2], other.observation[2])


def test_no_step_writes_to_what_an_earlier_one_gave():
    simulators = start(Atari("pong"))
    given = [simulators.reset(EVERY)]
    copies = [given[0].copy()]
    for action in draw(Atari("pong"), 5):
        given.append(simulators.step(action, EVERY).observation)
        copies.append(given[-1].copy())
    np.testing.assert_array_equal(given, copies)


@pytest.mark.parametrize(("name", "count"), ACTIONS.items())
def test_keeps_the_contract(name, count, emulators):
    environment = Atari(name)
    assert isinstance(environment, HostEnvironment)
    assert isinstance(environment, Pixels)
    assert spaces_of(environment) == Spaces(28224, Discrete(count), Frames(4, 84, 84))
    assert environment.max_steps == 27_000
    tasks = environment.task_set(2).deal(agents=1)
    simulators = environment.simulate(AtariTask(tasks.number[0]), streams(2))
    every = np.ones(2, bool)
    seen, step = simulators.reset(every), simulators.step(np.full(2, count - 1), every)
    assert seen.shape == step.observation.shape == (2, 28224)
    assert (seen.dtype, step.observation.dtype, step.reward.dtype) == (np.uint8, np.uint8, np.float64)
    assert {flags.dtype for flags in (step.terminated, step.truncated, step.finished)} == {np.dtype(bool)}
    assert simulators.state() is None
    with pytest.raises(NotImplementedError, match="cannot be restored"):
        simulators.restore(None)
    with pytest.raises(AssertionError, match="no such action"):  # ale-py would hang
        simulators.step(np.full(2, count), every)
    assert sum(emulator() is not None for emulator in emulators) == 2
    simulators.close()
    assert sum(emulator() is not None for emulator in emulators) == 0


@pytest.mark.parametrize(
    "name",
    [
        "space_invaders",
        "SpaceInvaders",
        "ALE/SpaceInvaders-v5",
        "SpaceInvadersNoFrameskip-v4",
        "Space Invaders",
        "space-invaders",
    ],
)
def test_a_game_has_many_spellings(name):
    assert Atari(name) == Atari("space_invaders")
    assert Atari(name).game == "space_invaders"
    assert loads(dumps(Atari(name, threads=2))) == Atari("space_invaders", threads=2)


def test_every_rom_is_found_by_its_own_and_by_gymnasiums_name():
    for rom in roms.get_all_rom_ids():
        assert Atari(rom).game == Atari(f"ALE/{rom.title().replace('_', '')}-v5").game == rom


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"game": "pnog"},
            r"game is 'pnog', which ale-py does not have; the nearest of its \d+ games are pong, \w+, \w+",
        ),
        ({"game": "SpaceInvader"}, "games are space_invaders, "),
        ({"game": ""}, "game is ''"),
        ({"threads": 0}, "threads is 0"),
        ({"most_noops": -1}, "most_noops is -1"),
        ({"max_frames": 3}, "max_frames is 3"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Atari(**arguments)


@pytest.mark.parametrize("package", ["ale_py", "ale_py.vector_env"])
def test_ale_py_missing_is_one_sentence_that_names_the_extra(monkeypatch, package):
    """The second is what is missing where gymnasium is."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError,
        match=r"^game is 'pong', for which .* needed, .*; the extra atari has both: "
        r"pip install -e '\.\[atari\]' in the clone$",
    ):
        Atari("pong")


def test_no_task_is_refused():
    with pytest.raises(InputError, match="the number of tasks is 0; it must be at least 1"):
        Atari("pong").task_set(0)


def test_a_film_shows_the_game_that_is_simulated_in_colour(resets):
    environment = Atari("breakout")
    filmed, pictures = environment.film(streams(1, seed=4))
    seen, console = filmed.reset(EVERY), Console("breakout", opening_of(resets))
    plain = start(environment, seed=4)
    np.testing.assert_array_equal(seen, plain.reset(EVERY))
    np.testing.assert_array_equal(pictures(), [console.ale.getScreenRGB()])
    lost = 0
    for action in draw(environment, 1000):
        one, other = filmed.step(action, EVERY), plain.step(action, EVERY)
        np.testing.assert_array_equal(one.observation, other.observation)
        assert one.reward == other.reward
        if one.finished[0]:
            break
        expected = []
        for button in (action[0], FIRE)[: 1 + int(one.terminated[0])]:
            console.hold(button)
            expected.append(console.seen)
        np.testing.assert_array_equal(pictures(), expected)
        if one.terminated[0]:
            lost += 1
            np.testing.assert_array_equal(filmed.reset(EVERY), plain.reset(EVERY))
    assert lost == 4
