"""Videos: what is seen of a game, step by step, the files written, and all that is refused."""

import importlib.util
import sys
from dataclasses import replace
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image, ImageSequence

from gossamer import train
from gossamer.algorithms import A2C
from gossamer.environments import Atari, GymnasiumEnvironment, HostStep
from gossamer.errors import InputError
from gossamer.evaluation import video
from gossamer.evaluation.video import Moment, play, record_video, write_video
from gossamer.experience import Steps
from gossamer.recipes import a2c
from gossamer.runtimes.build import build, initial_population
from small import small_experiment


def coloured(number, height=3, width=5):
    return np.full((height, width, 3), (number, 255 - number, 7), np.uint8)


class Lives:
    """Steps 1, 2, ... of which some lose a life, and one the game; the observation is the number of the step."""

    def __init__(self, lost, over, reports_finished=True):
        self.lost, self.over, self.reports = lost, over, reports_finished
        self.now, self.resets, self.actions, self.unseen = 0, [], [], []

    def reset(self, which):
        assert which.tolist() == [True]
        self.resets.append(self.now)
        self.unseen.append(coloured(self.now))
        return np.array([[100.0 + self.now]], np.float32)

    def step(self, action, which):
        self.now += 1
        self.actions.append(float(action[0]))
        self.unseen.append(coloured(self.now))
        over, lost = np.array([self.now == self.over]), np.array([self.now in self.lost])
        finished = over if self.reports else None
        return HostStep(
            np.array([[self.now]], np.float32), np.full(1, 2.0), lost | over, np.zeros(1, bool), finished
        )

    def state(self):
        return None

    def restore(self, state):
        raise NotImplementedError

    def close(self):
        pass

    def pictures(self):
        shown, self.unseen = self.unseen, []
        return shown


def watch(lives, most_steps=50):
    return list(
        play(lives, lives.pictures, lambda step, seen, carry: (seen[:, 0] + 1000 * step, carry), most_steps)
    )


def test_a_lost_life_does_not_end_the_game():
    lives = Lives(lost=(2, 4), over=6)
    moments = watch(lives)
    assert [moment.finished for moment in moments] == [False] * 5 + [True]
    assert [moment.reward for moment in moments] == [2.0] * 6
    assert lives.resets == [0, 2, 4]
    # a new life's first action is for what it sees first
    assert lives.actions == [100, 1001, 2102, 3003, 4104, 5005]
    shown = [picture[0, 0, 0] for moment in moments for picture in moment.pictures]
    assert shown == [0, 1, 2, 2, 3, 4, 4, 5, 6]


def test_where_nothing_is_said_of_finishing_an_end_is_the_end():
    assert len(watch(Lives(lost=(3,), over=6, reports_finished=False))) == 3


def test_a_long_game_is_cut():
    moments = watch(Lives(lost=(), over=9), most_steps=4)
    assert [moment.finished for moment in moments] == [False] * 4


def test_a_gif_shows_every_picture(tmp_path):
    moments = [Moment([coloured(10 * n), coloured(10 * n + 5)], n, n == 3) for n in range(4)]
    written = write_video(iter(moments), tmp_path / "it.gif", pictures_per_second=12.5)
    assert written == (tmp_path / "it.gif", 4, 6.0, True)
    with Image.open(written.path) as file:
        assert file.info["duration"] == 80
        shown = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
    np.testing.assert_array_equal(shown, [picture for moment in moments for picture in moment.pictures])


def test_mp4_is_written_picture_by_picture(tmp_path, monkeypatch):
    calls = []

    def write_frames(path, size, fps, macro_block_size):
        calls.append((path, size, fps, macro_block_size))
        try:
            while True:
                calls.append((yield))
        finally:
            calls.append("closed")

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", SimpleNamespace(write_frames=write_frames))
    written = write_video([Moment([coloured(n)], 1.0, False) for n in range(3)], tmp_path / "it.mp4", 15.0)
    assert (written.steps, written.score, written.finished) == (3, 3.0, False)
    assert calls[0] == (str(tmp_path / "it.mp4"), (5, 3), 15.0, 2)
    np.testing.assert_array_equal(calls[1:4], [coloured(n) for n in range(3)])
    assert calls[4:] == ["closed"]


@pytest.mark.skipif(not importlib.util.find_spec("imageio_ffmpeg"), reason="it is no dependency")
def test_mp4_is_a_film(tmp_path):
    moments = [Moment([coloured(n, 64, 32)], 1.0, False) for n in range(3)]
    written = write_video(moments, tmp_path / "it.mp4", 15.0)
    assert b"ftyp" in written.path.read_bytes()[:16]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("it.avi", r"the video's suffix is '\.avi'"),
        ("it", "the video's suffix is ''"),
        ("nowhere/it.gif", "the video is to be .*it.gif, whose folder does not exist"),
        ("it.mp4", r"the video's suffix is \.mp4"),
    ],
)
def test_a_path_that_does_not_fit_is_refused_before_anything_is_played(tmp_path, monkeypatch, name, sentence):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=sentence):
        write_video(iter(()), tmp_path / name, 15.0)
    with pytest.raises(InputError, match=sentence):
        record_video(tmp_path, tmp_path / name)


class Shown(gymnasium.Env):
    """Its picture's colour is the number of the step; five steps, each of which pays 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as Gymnasium's own are
    observation_space, action_space = spaces.Box(-9, 9, (2,)), spaces.Discrete(2)

    def __init__(self, render_mode=None, picture=coloured):
        self.render_mode, self.picture = render_mode, picture

    def reset(self, *, seed=None, options=None):
        self.now = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.now += 1
        return np.full(2, self.now, np.float32), 1.0, self.now == 5, False, {}

    def render(self):
        return self.picture(self.now)


def needy(number):
    raise gymnasium.error.DependencyNotInstalled("pygame is not installed.")


@pytest.fixture
def gym(monkeypatch):
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    for name, picture in {"Shown-v0": coloured, "Needy-v0": needy, "Blind-v0": lambda number: None}.items():
        gymnasium.register(name, Shown, max_episode_steps=9, kwargs={"picture": picture})


def small(environment, **network):
    every = {"rounds": 1, "record_every": 1, "checkpoint_every": 1}
    algorithm = A2C(hidden=(4,), **network)
    return replace(
        a2c(), environment=environment, algorithm=algorithm, agents=3, copies=1, experience=Steps(2), **every
    )


@pytest.fixture
def pretend(monkeypatch):
    """Make an untrained population look like a run."""

    def pretend(experiment):
        parts = build(experiment)
        population = initial_population(parts.algorithm, experiment, parts.mailbox, parts.tasks)
        monkeypatch.setattr(video, "restore_population", lambda run: (experiment, parts, population))
        return parts, population

    return pretend


def test_a_run_of_several_seeds_is_filmed_and_its_file_lies_in_its_folder(gym, tmp_path):
    run = train(replace(small(GymnasiumEnvironment("Shown-v0")), seeds=2), tmp_path / "run")
    seen = record_video(run, agent=2)
    assert seen == (run / "video.gif", 5, 5.0, True)
    with Image.open(seen.path) as file:
        assert file.n_frames == 5
        assert file.info["duration"] == 50


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Needy-v0", "Needy-v0 was not rendered: pygame is not installed"),
        ("Blind-v0", "Blind-v0 shows no picture of itself: its rgb_array is of NoneType"),
    ],
)
def test_what_gymnasium_does_not_render_is_refused(gym, pretend, tmp_path, name, sentence):
    pretend(small(GymnasiumEnvironment(name)))
    with pytest.raises(InputError, match=sentence):
        record_video(tmp_path)


@pytest.mark.parametrize("greedy", [True, False])
def test_a_game_of_atari_is_filmed_in_colour(pretend, tmp_path, greedy):
    environment = Atari("pong", max_frames=48)
    parts, population = pretend(small(environment, network="nature", activation="relu"))
    seen = record_video(tmp_path, tmp_path / "pong.gif", agent=1, greedy=greedy, seed=4)
    params = jax.tree.map(lambda leaf: leaf[0, 1], population.learner.params)
    simulators, pictures = environment.film(np.array([[4, 1, 0]]))
    only, expected = np.ones(1, bool), []
    observation = simulators.reset(only)
    for step in range(12):
        action = parts.algorithm.act_greedily(params, jnp.asarray(observation[0]))
        if not greedy:
            (key,) = jax.random.split(jax.random.fold_in(jax.random.key(4), step), 1)
            action = parts.algorithm.act(params, key, jnp.asarray(observation[0]))[0]
        observation = simulators.step(np.asarray(action)[None], only).observation
    expected = pictures()
    assert (seen.steps, seen.finished) == (12, True)
    with Image.open(seen.path) as file:
        shown = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
    # a gif holds a picture that does not change only once, for longer
    changed = [
        picture
        for number, picture in enumerate(expected)
        if number == 0 or not np.array_equal(picture, expected[number - 1])
    ]
    np.testing.assert_array_equal(shown, changed)


def test_what_cannot_be_filmed_is_refused(pretend, tmp_path):
    pretend(small_experiment())
    with pytest.raises(
        InputError, match=r"^the environment is CartPoleBalance, which shows no picture of itself; "
    ):
        record_video(tmp_path)
    with pytest.raises(InputError, match=r"^agent is 5; the run's are numbered from 0 to 4$"):
        record_video(tmp_path, agent=5)
    with pytest.raises(InputError, match=r"^agent is -1; the run's"):
        record_video(tmp_path, agent=-1)
    with pytest.raises(InputError, match=r"^most_steps is 0; it must be at least 1$"):
        record_video(tmp_path, most_steps=0)
    with pytest.raises(InputError, match=r"^seed is -1; it must be at least 0$"):
        record_video(tmp_path, seed=-1)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        record_video(tmp_path)
