"""How good a trained population is: every agent on every task, greedily or sampled. Nothing is learned here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from gossamer.analysis.statistics import bootstrap_interval
from gossamer.environments import TaskSet
from gossamer.errors import InputError, require_at_least
from gossamer.evaluation.rollouts import play_every_task, play_on_host
from gossamer.experiment import on_host
from gossamer.runs.folder import write_json
from gossamer.runs.restore import restore_population
from gossamer.system.compilation_cache import persistent_cache

_MOST_AGENTS = 25


class Evaluation(NamedTuple):
    """Undiscounted returns of whole episodes, and which agent was trained on which task.

    ``agent[i]`` is the number of the agent in row i; ``trained[i, t]`` says whether task t was among its own.
    """

    task_set: TaskSet
    agent: Int[np.ndarray, " agent"]
    trained: np.ndarray
    returns: Float[np.ndarray, "seed agent task episode"]

    @property
    def own(self) -> Float[np.ndarray, " task"]:
        """Mean return on each task of the agents that trained on it; NaN where none of them was evaluated."""
        each = np.where(self.trained, self.returns.mean((0, 3)), np.nan)
        counts = self.trained.sum(0)
        return np.divide(np.nansum(each, 0), counts, out=np.full(len(counts), np.nan), where=counts > 0)

    @property
    def all(self) -> Float[np.ndarray, " task"]:
        """Mean return on each task of all agents evaluated."""
        return self.returns.mean((0, 1, 3))

    @property
    def deviation(self) -> Float[np.ndarray, " task"]:
        """Standard deviation on each task over seeds, agents and episodes."""
        return self.returns.std((0, 1, 3))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval over seeds of the mean over agents, tasks and episodes."""
        low, high = bootstrap_interval(self.returns.mean((1, 2, 3))[:, None])
        return float(low[0]), float(high[0])

    @property
    def worst_agent(self) -> Float[np.ndarray, " task"]:
        """Mean return on each task of the agent (of any seed) that is worst there."""
        return self.returns.mean(3).min((0, 1))


def evaluate(
    run: Path | str,
    episodes: int = 10,
    greedy: bool = True,
    seed: int = 0,
    task_set: TaskSet | None = None,
    best: bool = False,
) -> Evaluation:
    """Play episodes on every task of a run, or on others, with the agents of its newest checkpoint.

    Populations of more than 25 agents are represented by 25 at even distances.

    Args:
        run: a folder that ``train`` made, of one seed or several.
        episodes: per agent and task, at least 1.
        greedy: play the most probable action; sampled otherwise, as in training.
        seed: of the initial states and the sampled actions.
        task_set: tasks that no agent was trained on (zero-shot); by default those of the run.
        best: play with each seed's best checkpoint, not with its newest.

    Raises:
        InputError: the folder holds no run, or ``episodes`` is below 1.
    """
    require_at_least("episodes", episodes, 1)
    with persistent_cache():
        experiment, parts, population = restore_population(Path(run), best)
        agent = np.unique(np.linspace(0, experiment.agents - 1, _MOST_AGENTS).round().astype(int))
        # Chosen by numpy: ``jnp`` would compile a program for each shape.
        params = jax.tree.map(lambda leaf: np.asarray(leaf)[:, agent], population.learner.params)
        played = task_set or parts.task_set
        tasks = jax.tree.map(lambda leaf: np.asarray(leaf)[0], played.deal(agents=1))
        play = play_on_host if on_host(parts.environment) else play_every_task
        returns = play(
            parts.algorithm, params, tasks, jax.random.key(seed), parts.environment, episodes, greedy
        )
    trained = np.zeros((len(agent), len(played)), bool)
    if task_set is None:
        trained = np.stack([np.isin(range(len(played)), parts.task_index[i]) for i in agent])
    return Evaluation(played, agent, trained, np.asarray(returns))


def tasks_named(environment: Any, names: Sequence[str]) -> TaskSet:
    """Tasks given in words: those an environment holds out, by name, or values of every parameter.

    Args:
        environment: the family.
        names: each ``easy``, ``hard`` or the like, or ``parameter=value,...``.

    Raises:
        InputError: an unknown name or parameter, one that is missing, or a value that is no number.

    Example:
        >>> from gossamer.environments import Acrobot
        >>> tasks_named(Acrobot(), ["easy", "length=1,mass=1,inertia=1"]).describe(0)
        'length 0.7046, mass 0.5259, inertia 0.6346'
    """
    held_out = environment.held_out() if hasattr(environment, "held_out") else {}
    example = environment.task_set(1).tasks[0]
    tasks: list[Any] = []
    for name in names:
        tasks += held_out[name].tasks if name in held_out else (_task_of(example, name, list(held_out)),)
    return TaskSet(tuple(tasks))


def _task_of(example: Any, text: str, known: list[str]) -> Any:
    pairs = {name: value for name, _, value in (part.partition("=") for part in text.split(","))}
    try:
        if set(pairs) != set(example._fields):
            raise ValueError
        return type(example)(**{name: float(value) for name, value in pairs.items()})
    except ValueError as error:
        form = ",".join(f"{name}={value}" for name, value in zip(example._fields, example, strict=True))
        names = f"{', '.join(known)} or " if known else ""
        raise InputError(
            f"{text!r} is no task; give {names}values of all parameters, such as {form}"
        ) from error


def table(evaluation: Evaluation) -> str:
    """The evaluation as text: a line per task, and the means."""
    columns = _columns(evaluation)
    rows = [
        [evaluation.task_set.describe(task), *(_number(values[task]) for values in columns.values())]
        for task in range(len(evaluation.task_set))
    ]
    rows.append(["mean over tasks", *(_number(_known_mean(values)) for values in columns.values())])
    header = ["task", *columns]
    width = max(len(row[0]) for row in rows)
    lines = [
        "  ".join([row[0].ljust(width), *(f"{cell:>12}" for cell in row[1:])]) for row in [header, *rows]
    ]
    if len(evaluation.returns) > 1:
        low, high = evaluation.interval
        lines.append(
            f"all agents, 95 % interval over {len(evaluation.returns)} seeds: {low:.1f} to {high:.1f}"
        )
    return "\n".join(lines)


def write_evaluation(evaluation: Evaluation, path: Path) -> Path:
    """Write every episode's return, and the table's columns, as JSON."""
    data = {
        "tasks": [evaluation.task_set.describe(task) for task in range(len(evaluation.task_set))],
        "agents": evaluation.agent.tolist(),
        "mean_over_tasks": float(evaluation.all.mean()),
        "interval_over_seeds": evaluation.interval,
        **{name: values.tolist() for name, values in _columns(evaluation).items()},
        "returns_seed_agent_task_episode": evaluation.returns.tolist(),
    }
    write_json(path, data)
    return path


def _columns(evaluation: Evaluation) -> dict[str, np.ndarray]:
    return {
        "own agent": evaluation.own,
        "all agents": evaluation.all,
        "deviation": evaluation.deviation,
        "worst agent": evaluation.worst_agent,
    }


def _known_mean(values: np.ndarray) -> float:
    """NaN where the value is unknown, as for tasks that no agent was trained on."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _number(value: float | np.floating) -> str:
    return "–" if np.isnan(value) else f"{value:.1f}"
