"""Watching a trained agent: one whole game or episode, written as a video. Nothing is learned or compared here.

Only environments that show a picture of themselves can be filmed: Atari, and those of Gymnasium that render.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8
from PIL import Image

from gossamer.algorithms.protocol import initial_carry
from gossamer.environments import Atari, GymnasiumEnvironment, Simulators
from gossamer.errors import InputError, require_at_least, require_choice
from gossamer.evaluation.rollouts import act_for_episodes
from gossamer.runs.restore import restore_population

Picture: TypeAlias = UInt8[np.ndarray, "height width 3"]

_SUFFIXES = (".gif", ".mp4")


class Video(NamedTuple):
    """A file, and what is to be seen in it: how many steps, their undiscounted return, and whether they end it."""

    path: Path
    steps: int
    score: float
    finished: bool


class Moment(NamedTuple):
    """What one step showed, and what it earned; ``finished`` where the game, and not only a life, ended with it."""

    pictures: list[Picture]
    reward: float
    finished: bool


def record_video(
    run: Path,
    path: Path | None = None,
    agent: int = 0,
    greedy: bool = True,
    seed: int = 0,
    most_steps: int = 5_000,
) -> Video:
    """Film one game, or episode, of an agent of a run's newest checkpoint; of its first seed if it has several.

    The agent plays the first of its own tasks.

    Args:
        run: a folder that ``train`` made.
        path: the file to write, replaced if it exists: .gif, or .mp4, which needs the package imageio-ffmpeg; by
            default video.gif in the run's folder.
        agent: its number, from 0.
        greedy: play the most probable action; sampled otherwise, as in training.
        seed: of the opening and the sampled actions.
        most_steps: a longer game is cut here.

    Raises:
        InputError: the folder holds no run, there is no such agent, the environment shows no picture, the suffix
            is another one, its folder does not exist, or a package is missing.
    """
    path = run / "video.gif" if path is None else path
    require_at_least("most_steps", most_steps, 1)
    require_at_least("seed", seed, 0)
    _check_path(path)
    experiment, parts, population = restore_population(run)
    if not 0 <= agent < experiment.agents:
        raise InputError(f"agent is {agent}; the run's are numbered from 0 to {experiment.agents - 1}")
    params = jax.tree.map(lambda leaf: leaf[0, agent], population.learner.params)
    task = parts.task_set.tasks[int(np.ravel(parts.task_index[agent])[0])]
    film = _film(parts.environment, task, np.array([[seed, agent, 0]]))
    act = partial(act_for_episodes, parts.algorithm, params, jax.random.key(seed), greedy=greedy)
    with closing(film.simulators):
        moments = play(film.simulators, film.pictures, act, most_steps, initial_carry(parts.algorithm, 1))
        return write_video(moments, path, film.pictures_per_second)


def play(
    simulators: Simulators,
    pictures: Callable[[], list[Picture]],
    act: Callable[[int, Array, Any], tuple[Array, Any]],
    most_steps: int,
    initial: Any = (),
) -> Iterator[Moment]:
    """What is seen of one simulator until its game ends; lives that it loses on the way do not end it.

    Args:
        simulators: one, not started yet.
        pictures: gives those since it was last called.
        act: from the number of the step, observations ``[1, observation]`` and carries: actions and next carries.
        most_steps: stop there at the latest.
        initial: the carry at the start of an episode.

    Yields:
        One moment for each step; the first of a game of Atari shows its opening, too.
    """
    only = np.ones(1, bool)
    observation, carry = simulators.reset(only), initial
    for step in range(most_steps):
        action, carry = act(step, jnp.asarray(observation), carry)
        taken = simulators.step(np.asarray(action), only)
        ended = taken.terminated | taken.truncated
        finished = bool((ended if taken.finished is None else taken.finished)[0])
        observation = taken.observation
        if ended[0] and not finished:
            observation, carry = simulators.reset(only), initial
        yield Moment(pictures(), float(taken.reward[0]), finished)
        if finished:
            return


def write_video(moments: Iterable[Moment], path: Path, pictures_per_second: float) -> Video:
    """Write what is seen as it comes; at least one picture.

    Raises:
        InputError: the suffix is unknown, the folder does not exist, or the package for it is missing.

    Example:
        >>> import tempfile
        >>> black = np.zeros((2, 2, 3), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     video = write_video([Moment([black], 1.0, True)], Path(folder) / "black.gif", 15.0)
        >>> video.steps, video.score, video.finished
        (1, 1.0, True)
    """
    _check_path(path)
    steps, score, finished = 0, 0.0, False

    def shown() -> Iterator[Picture]:
        nonlocal steps, score, finished
        for moment in moments:
            steps, score, finished = steps + 1, score + moment.reward, moment.finished
            yield from moment.pictures

    (_write_gif if path.suffix == ".gif" else _write_mp4)(shown(), path, pictures_per_second)
    return Video(path, steps, score, finished)


class _Film(NamedTuple):
    simulators: Simulators
    pictures: Callable[[], list[Picture]]
    pictures_per_second: float


def _film(environment: Any, task: Any, streams: Int[np.ndarray, "1 3"]) -> _Film:
    if isinstance(environment, Atari):
        return _Film(*environment.film(streams), environment.pictures_per_second)
    if isinstance(environment, GymnasiumEnvironment):
        return _film_gymnasium(environment, task, streams)
    raise InputError(
        f"the environment is {type(environment).__name__}, which shows no picture of itself; "
        "those that can be filmed are Atari, and GymnasiumEnvironment where Gymnasium renders it"
    )


def _film_gymnasium(environment: GymnasiumEnvironment, task: Any, streams: Int[np.ndarray, "1 3"]) -> _Film:
    arguments = {**dict(environment.arguments), "render_mode": "rgb_array"}
    rendering = replace(environment, arguments=tuple(arguments.items()))
    tasks = jax.tree.map(lambda value: np.asarray([value]), task)
    simulators: Any = rendering.simulate(tasks, streams)
    (inside,) = simulators.environments
    rate = inside.metadata.get("render_fps") or 30
    return _Film(simulators, partial(_rendered, environment.env_id, inside), float(rate))


def _rendered(id: str, environment: Any) -> list[Picture]:
    import gymnasium

    try:
        picture = environment.render()
    except (gymnasium.error.Error, ImportError) as error:
        raise InputError(f"{id} was not rendered: {' '.join(str(error).split()).rstrip('.')}") from error
    if not isinstance(picture, np.ndarray):
        raise InputError(f"{id} shows no picture of itself: its rgb_array is of {type(picture).__name__}")
    return [picture]


def _check_path(path: Path) -> None:
    require_choice("the video's suffix", path.suffix, _SUFFIXES)
    if not path.parent.is_dir():
        raise InputError(f"the video is to be {path}, whose folder does not exist; give one that does")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written; make it writable, or give another path (--out)")
    if path.suffix == ".mp4":
        _import_ffmpeg()


def _write_gif(pictures: Iterator[Picture], path: Path, rate: float) -> None:
    images = (Image.fromarray(picture) for picture in pictures)
    next(images).save(path, save_all=True, append_images=images, duration=round(1000 / rate), loop=0)


def _write_mp4(pictures: Iterator[Picture], path: Path, rate: float) -> None:
    first = next(pictures)
    height, width, _ = first.shape
    # Blocks of 2: players want an even width and height, and nothing else is to be scaled.
    writer = _import_ffmpeg().write_frames(str(path), (width, height), fps=rate, macro_block_size=2)
    with closing(writer):
        writer.send(None)
        for picture in chain([first], pictures):
            writer.send(np.ascontiguousarray(picture))


def _import_ffmpeg() -> Any:
    try:
        # By name, because it is no dependency of ours that a type checker could look into.
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise InputError(
            f"the video's suffix is .mp4, for which the package imageio-ffmpeg is needed, and Python says: {error}; "
            "pip install imageio-ffmpeg, or choose .gif"
        ) from error
