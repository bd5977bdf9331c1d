"""Atari games of ale-py, seen and played as the GALA paper does; every task of a game is the same one.

It knows no learner: rewards are the game's points, which learners may clip, and a return is that of a whole game.
"""

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from gossamer.environments.protocol import HostStep, Simulators
from gossamer.environments.seeding import stream_seed
from gossamer.environments.tasks import TaskSet
from gossamer.errors import InputError, require_at_least
from gossamer.types import Discrete, Frames


class AtariTask(NamedTuple):
    """Nothing varies: ``number`` is 0 in every task."""

    number: Any


@dataclass(frozen=True)
class Atari:
    """One Atari 2600 game, its rewards unclipped, its actions the smallest set that plays it, and none sticky.

    An action is held for 4 frames (60 frames are a second). The observation is the last 4 pictures, oldest first;
    each is the brighter of the last 2 frames, in grey, at 84×84 pixels, and black where there is none yet.

    A game starts with FIRE, where there is such an action, and no-ops, ``most_noops`` frames at most in all. An
    episode of the learner ends with each life; the game continues, so returns are reported (``HostStep.finished``)
    once the game is over, or its time. What FIRE earns after a life was lost is part of the reward of losing it.

    Args:
        game: such as pong or space_invaders; SpaceInvaders and ALE/SpaceInvaders-v5 mean the same.
        threads: how many simulators run at any moment, which changes no result. With as many as there are simulators
            the operating system shares the processors out; with fewer some are left to others.
        most_noops: a new game's opening is drawn uniformly from 0 to so many frames, FIRE being one of them.
        fire_on_life_loss: press FIRE after each life lost, without which Breakout, say, stands still.
        clear_stack_on_life_loss: let no life see the pictures of the one before.
        lives_are_episodes: whether an episode ends where a life is lost, or only with the game.
        max_frames: after so many frames of the agent's actions a game is truncated.

    Raises:
        InputError: if ale-py or gymnasium is not installed, there is no such game, or a number is too small.

    Example:
        >>> pong = Atari("ALE/Pong-v5")
        >>> pong.game, pong.action_space, pong.max_steps
        ('pong', Discrete(size=6), 27000)
    """

    game: str = "pong"
    threads: int = 1
    most_noops: int = 30
    fire_on_life_loss: bool = True
    clear_stack_on_life_loss: bool = True
    lives_are_episodes: bool = True
    max_frames: int = 108_000

    def __post_init__(self) -> None:
        require_at_least("threads", self.threads, 1)
        require_at_least("most_noops", self.most_noops, 0)
        require_at_least("max_frames", self.max_frames, _FRAME_SKIP)
        # One spelling, so that equal games are equal environments.
        object.__setattr__(self, "game", _rom_named(self.game))

    @property
    def max_steps(self) -> int:
        """The time limit of a game in actions, which the simulators apply themselves."""
        return self.max_frames // _FRAME_SKIP

    @property
    def frames(self) -> Frames:
        """Four grey pictures of 84×84."""
        return _FRAMES

    @property
    def observation_size(self) -> int:
        """Number of bytes of an observation."""
        return _FRAMES.size

    @property
    def action_space(self) -> Discrete:
        """The game's minimal set of actions, in ale-py's order: no-op first, then FIRE where there is one.

        Example:
            >>> Atari("breakout").action_space
            Discrete(size=4)
        """
        return Discrete(_actions(self.game).size)

    @property
    def pictures_per_second(self) -> float:
        """How fast pictures of ``film`` follow each other when the game runs at its own speed."""
        return 60 / _FRAME_SKIP

    def task_set(self, count: int) -> TaskSet:
        """``count`` times the same task.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> Atari("pong").task_set(2).describe(1)
            'number 0.0'
        """
        require_at_least("the number of tasks", count, 1)
        return TaskSet((AtariTask(number=0.0),) * count)

    def simulate(self, tasks: Any, streams: Int[np.ndarray, "simulator 3"]) -> Simulators:
        """One game for each task, of which ``threads`` run at any moment.

        Args:
            tasks: a task of arrays ``[simulator]``.
            streams: (seed, agent, env) of each, none negative: its openings are drawn from them.
        """
        return _Games(self, [_vectoriser(self.game, self.most_noops) for _ in streams], streams)

    def film(
        self, streams: Int[np.ndarray, "1 3"]
    ) -> tuple[Simulators, Callable[[], list[UInt8[np.ndarray, "210 160 3"]]]]:
        """The one game that ``simulate`` gives for a stream, and what tells its pictures in colour.

        Returns:
            The simulator, and a function that gives the pictures since it was last called, one for every action,
            those of FIRE after a life was lost included.

        Example:
            >>> simulators, pictures = Atari("breakout").film(np.zeros((1, 3), int))
            >>> _ = simulators.reset(np.ones(1, bool))
            >>> [picture.shape for picture in pictures()]
            [(210, 160, 3)]
        """
        filmed = _Filmed(self.game, self.most_noops)
        return _Games(self, [filmed], streams), filmed.pictures


_FRAMES = Frames(stack=4, height=84, width=84)
_PICTURE = _FRAMES.height * _FRAMES.width
_FRAME_SKIP = 4
_NO_LIMIT = 2**30


class _Actions(NamedTuple):
    size: int
    fire: int | None


class _Games:
    """Running games, each in an AtariVectorEnv of its own.

    One AtariVectorEnv steps all its games or none. Here some must move while others rest: agents that a schedule
    leaves out, games that are over, and all but those that press FIRE for a new life. It costs an eighth of the speed.
    """

    def __init__(self, environment: Atari, games: list[Any], streams: Int[np.ndarray, "simulator 3"]) -> None:
        self._environment, self._games = environment, games
        self._seeds: list[int | None] = [stream_seed(stream) for stream in streams]
        self._actions = _actions(environment.game)
        self._lives = np.zeros(len(games), np.int64)
        self._elapsed = np.zeros(len(games), np.int64)
        # How many pictures of the stack may be seen, the newest ones.
        self._visible = np.full(len(games), _FRAMES.stack)
        # What a new life sees first, until it is asked for.
        self._next_life: dict[int, UInt8[np.ndarray, " observation"]] = {}

    def reset(self, which: Bool[np.ndarray, " simulator"]) -> UInt8[np.ndarray, "simulator observation"]:
        observation = self._blank()
        for index in np.flatnonzero(which).tolist():
            seen = self._next_life.pop(index, None)
            observation[index] = self._new_game(index) if seen is None else seen
        return observation

    def step(self, action: Int[np.ndarray, " simulator"], which: Bool[np.ndarray, " simulator"]) -> HostStep:
        before = self._lives.copy()
        observation, reward, over = self._act(action, which)
        self._elapsed += which
        lost = which & ~over & (self._lives > 0) & (self._lives < before)
        out_of_time = which & ~over & (self._elapsed >= self._environment.max_steps)
        if (lives_on := lost & ~out_of_time).any():
            seen, more, ended = self._start_life(observation, lives_on)
            reward, over = reward + more, over | ended
            self._show(observation, seen, lives_on & ~over)
        terminated = over | (lost & self._environment.lives_are_episodes)
        return HostStep(observation, reward, terminated, out_of_time & ~terminated, over | out_of_time)

    def state(self) -> None:
        return None

    def restore(self, state: Any) -> None:
        raise NotImplementedError("ale-py's vectorised games cannot be restored: state() is None")

    def close(self) -> None:
        # An AtariVectorEnv ends its thread when nothing refers to it any more.
        self._games.clear()

    def _new_game(self, index: int) -> UInt8[np.ndarray, " observation"]:
        # Seeded once: the game's generator then continues from one opening to the next.
        seed, self._seeds[index] = self._seeds[index], None
        seen, facts = self._games[index].reset(seed=seed)
        self._lives[index], self._elapsed[index] = facts["lives"][0], 0
        self._visible[index] = _FRAMES.stack
        return seen.reshape(-1)

    def _act(
        self, action: Int[np.ndarray, " simulator"], which: Bool[np.ndarray, " simulator"]
    ) -> tuple[np.ndarray, Float[np.ndarray, " simulator"], Bool[np.ndarray, " simulator"]]:
        """Observations, rewards and which games are over, after one action where ``which`` is true."""
        moving, action = np.flatnonzero(which), action.astype(np.int32)
        # ale-py does not refuse an action it does not have: it waits for ever.
        assert np.all((action[moving] >= 0) & (action[moving] < self._actions.size)), "no such action"
        observation, reward, over = self._blank(), np.zeros(len(which)), np.zeros(len(which), bool)
        waiting = iter(moving.tolist())
        for index in islice(waiting, self._environment.threads):
            self._games[index].send(action[index : index + 1])
        for index in moving.tolist():
            seen, points, ended, _, facts = self._games[index].recv()
            for following in islice(waiting, 1):  # a thread is free
                self._games[following].send(action[following : following + 1])
            observation[index] = seen.reshape(-1)
            reward[index], over[index], self._lives[index] = points[0], ended[0], facts["lives"][0]
        self._visible[moving] = np.minimum(self._visible[moving] + 1, _FRAMES.stack)
        self._hide(observation, which)
        return observation, reward, over

    def _start_life(
        self, observation: UInt8[np.ndarray, "simulator observation"], which: Bool[np.ndarray, " simulator"]
    ) -> tuple[np.ndarray, Float[np.ndarray, " simulator"], Bool[np.ndarray, " simulator"]]:
        """As ``_act``, with FIRE or, where it is not to be pressed, nothing."""
        chosen = self._environment
        if chosen.clear_stack_on_life_loss:
            self._visible[which] = 0
        if chosen.fire_on_life_loss and self._actions.fire is not None:
            return self._act(np.full(len(which), self._actions.fire), which)
        self._visible[which] = np.maximum(self._visible[which], 1)
        seen = observation.copy()
        self._hide(seen, which)
        return seen, np.zeros(len(which)), np.zeros(len(which), bool)

    def _show(
        self,
        observation: UInt8[np.ndarray, "simulator observation"],
        seen: UInt8[np.ndarray, "simulator observation"],
        which: Bool[np.ndarray, " simulator"],
    ) -> None:
        """Let the next life's first observation be seen: by the next ``reset``, or now if the episode continues."""
        if self._environment.lives_are_episodes:
            self._next_life.update((index, seen[index]) for index in np.flatnonzero(which).tolist())
        else:
            observation[which] = seen[which]

    def _hide(
        self, observation: UInt8[np.ndarray, "simulator observation"], which: Bool[np.ndarray, " simulator"]
    ) -> None:
        for index in np.flatnonzero(which & (self._visible < _FRAMES.stack)).tolist():
            observation[index, : (_FRAMES.stack - self._visible[index]) * _PICTURE] = 0

    def _blank(self) -> UInt8[np.ndarray, "simulator observation"]:
        return np.zeros((len(self._lives), _FRAMES.size), np.uint8)


class _Filmed:
    """A game and its twin, which is given the same seeds and actions, and seen in colour at full size."""

    def __init__(self, rom: str, most_noops: int) -> None:
        self._game = _vectoriser(rom, most_noops)
        self._twin = _vectoriser(rom, most_noops, grayscale=False, img_height=210, img_width=160, stack_num=1)
        self._pictures: list[UInt8[np.ndarray, "210 160 3"]] = []

    def pictures(self) -> list[UInt8[np.ndarray, "210 160 3"]]:
        taken, self._pictures = self._pictures, []
        return taken

    def reset(self, seed: int | None) -> tuple[np.ndarray, dict[str, Any]]:
        self._pictures.append(self._twin.reset(seed=seed)[0][0, 0])
        return self._game.reset(seed=seed)

    def send(self, actions: Int[np.ndarray, " 1"]) -> None:
        self._twin.send(actions)
        self._game.send(actions)

    def recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self._pictures.append(self._twin.recv()[0][0, 0])
        return self._game.recv()


def _vectoriser(rom: str, most_noops: int, **picture: Any) -> Any:
    """An AtariVectorEnv of one game, which nothing but ``reset`` starts anew.

    ``life_loss_info`` stays off, because it reports a lost life as the end of a game; lives are counted here
    instead. So is time: ale-py leaves a game that it truncates before it looks at the last frame.
    """
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        rom,
        1,
        num_threads=1,
        noop_max=most_noops + 1,  # an exclusive bound
        reward_clipping=False,
        max_num_frames_per_episode=_NO_LIMIT,
        **picture,
    )


@functools.cache
def _actions(rom: str) -> _Actions:
    names = [action.name for action in _vectoriser(rom, most_noops=0).ale.get_action_set()]
    return _Actions(len(names), names.index("FIRE") if "FIRE" in names else None)


def _rom_named(game: str) -> str:
    """The ROM that a game's name means, however it is spelt."""
    roms = {rom.replace("_", ""): rom for rom in _roms(game)}
    name = re.sub(r"^ALE/|(NoFrameskip|Deterministic)?(-v\d+)?$", "", game)
    squashed = re.sub(r"[^a-z0-9]", "", name.lower())
    if squashed not in roms:
        near = [roms[key] for key in difflib.get_close_matches(squashed, roms, n=3, cutoff=0.0)]
        raise InputError(
            f"game is {game!r}, which ale-py does not have; "
            f"the nearest of its {len(roms)} games are {', '.join(near)}"
        )
    return roms[squashed]


def _roms(game: str) -> list[str]:
    try:
        import ale_py.roms
        import ale_py.vector_env
    except ImportError as error:
        raise InputError(
            f"game is {game!r}, for which the packages ale-py and gymnasium are needed, and Python says: {error}; "
            "the extra atari has both: pip install -e '.[atari]' in the clone"
        ) from error
    return ale_py.roms.get_all_rom_ids()
