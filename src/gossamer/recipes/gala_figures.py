"""The trainings behind GALA's figures 1 to 4 and table 1, by name; those of one name are shared.

``paper`` has the published games, simulators and seeds; ``quick`` fits two CPU cores, with learners of 4 simulators
instead of 16, and cart-pole balance or Acrobot in place of Atari games where something has to be learned. Every
docstring says what is chosen where the paper is silent. Steps are agent steps of all simulators together.
"""

from dataclasses import replace

from gossamer.environments import Acrobot, Atari, CartPoleBalance, Environment, HostEnvironment
from gossamer.experiment import Experiment
from gossamer.recipes.diffdac import Scale, Trainings
from gossamer.recipes.gala import a3c, all_reduce_a2c, gala_a2c, impala

GAMES = ("beam_rider", "breakout", "pong", "qbert", "seaquest", "space_invaders")
"""The six of the paper."""

_LEARNER = {"quick": 4, "paper": 16}  # simulators of one learner
NOMINAL = 16  # simulators of the one learner whose score tells success, at every scale
_PAPER_STEPS = 10_000_000
_CARTPOLE_STEPS = 400_000
_CORRELATION_STEPS = {"acrobot": 400_000, "pong": 16_000}
_SPEED_STEPS = {"quick": 16_000, "paper": 2_000_000}
_BEST_PONG_STEPS = 60_000
_QUICK_RECORDS = 100


def success(scale: Scale, seeds: int) -> Trainings:
    """Figure 1: GALA-A2C and A2C with 64 to 1024 simulators, and the A2C of 16 simulators that tells what success is.

    Quick: cart-pole balance in place of six games; 16, 32 and 64 simulators, 4 of each learner.
    """
    sizes = (16, 32, 64) if scale == "quick" else (64, 128, 256, 512, 1024)
    trainings: dict[str, Experiment] = {}
    for game, environment in _learnable(scale).items():
        steps = _CARTPOLE_STEPS if scale == "quick" else _PAPER_STEPS
        trainings[f"{game}-nominal-{NOMINAL}"] = all_reduce_a2c(environment, 1, NOMINAL, steps)
        for size in sizes:
            learners, each = size // _LEARNER[scale], _LEARNER[scale]
            trainings[f"{game}-gala-{size}"] = gala_a2c(environment, learners, each, steps)
            trainings[f"{game}-a2c-{size}"] = all_reduce_a2c(environment, learners, each, steps)
    if scale == "quick":
        trainings = {name: _for_curves(each) for name, each in trainings.items()}
    return _with_seeds(trainings, seeds)


def correlation(scale: Scale, seeds: int) -> Trainings:
    """Figure 2: 4 learners that gossip, certified, and 4 that average their gradients; correlations of both.

    The bound looks at every update, which slows these runs: no other figure uses them. Quick: Acrobot and a few
    updates of Pong.
    """
    environments: dict[str, Environment | HostEnvironment] = {"acrobot": Acrobot(), "pong": Atari("pong")}
    if scale == "paper":
        environments = {game: Atari(game) for game in GAMES}
    trainings: dict[str, Experiment] = {}
    for game, environment in environments.items():
        steps = _CORRELATION_STEPS[game] if scale == "quick" else _PAPER_STEPS
        gossip = gala_a2c(environment, 4, _LEARNER[scale], steps)
        reduce = all_reduce_a2c(environment, 4, _LEARNER[scale], steps)
        trainings[f"{game}-gala-certified"] = replace(gossip, certify=True, correlate=True)
        trainings[f"{game}-a2c-correlated"] = replace(reduce, correlate=True)
    if scale == "quick":
        trainings = {name: _for_curves(each) for name, each in trainings.items()}
    return _with_seeds(trainings, seeds)


def speed(scale: Scale, seeds: int) -> Trainings:
    """Figure 3: Pong with a growing number of learners, of A2C's and A3C's workers, of IMPALA's actors.

    The published numbers of learners are not in the text; 1 to 16 are this file's choice. All make as many steps:
    asynchronous workers that run ahead while the first lines are compiled must be caught up with well before the half
    that is timed. Lines of the metrics are few, so that writing them takes no time from threads. Quick: 1, 2 and 4
    learners; two seeds at most.
    """
    makers = {"gala": gala_a2c, "a2c": all_reduce_a2c, "a3c": a3c, "impala": impala}
    trainings = {
        f"pong-speed-{method}-{learners}": _for_speed(
            make(Atari("pong"), learners, _LEARNER[scale], _SPEED_STEPS[scale])
        )
        for learners in ((1, 2, 4) if scale == "quick" else (1, 2, 4, 8, 12, 16))
        for method, make in makers.items()
    }
    return _with_seeds(trainings, _few(scale, seeds, 2))


def a3c_batches(scale: Scale, seeds: int) -> Trainings:
    """Figure 4: A3C with 4 workers of 16 simulators, and the original of one simulator a worker: 64, and 16 beside it.

    Quick: cart-pole balance in place of six games, 4 workers of 4 simulators, 16 and 4 original workers.
    """
    each = _LEARNER[scale]
    shapes = {"large-batch": (4, each), "original": (4 * each, 1), "original-fewer": (each, 1)}
    steps = _CARTPOLE_STEPS if scale == "quick" else _PAPER_STEPS
    trainings = {
        f"{game}-a3c-{name}": a3c(environment, workers, simulators, steps)
        for game, environment in _learnable(scale).items()
        for name, (workers, simulators) in shapes.items()
    }
    if scale == "quick":
        trainings = {name: _for_curves(each) for name, each in trainings.items()}
    return _with_seeds(trainings, seeds)


def best_policies(scale: Scale, seeds: int) -> Trainings:
    """Table 1: figure 1's trainings with 64 simulators, whose best policies are kept.

    Quick: Pong alone, 4 learners of 4 simulators, far too short to learn it; two seeds at most.
    """
    if scale == "paper":
        return {
            name: each
            for name, each in success(scale, seeds).items()
            if name.endswith(("-gala-64", "-a2c-64"))
        }
    makers = {"pong-gala-16": gala_a2c, "pong-a2c-16": all_reduce_a2c}
    trainings = {
        name: _for_curves(
            make(Atari("pong"), 4, _LEARNER[scale], _BEST_PONG_STEPS), checkpoints=10, keep_best=True
        )
        for name, make in makers.items()
    }
    return _with_seeds(trainings, _few(scale, seeds, 2))


def _learnable(scale: Scale) -> dict[str, Environment | HostEnvironment]:
    """What is learned to the end: the six games, or what a CPU learns in a minute."""
    if scale == "paper":
        return {game: Atari(game) for game in GAMES}
    return {"cartpole": CartPoleBalance()}


def _for_curves(experiment: Experiment, checkpoints: int = 2, keep_best: bool = False) -> Experiment:
    """With a hundred lines of metrics, as writing them and checkpoints would take much of a short run."""
    every = max(experiment.rounds // _QUICK_RECORDS, 1)
    rounds = max(experiment.rounds // every, 1) * every
    return replace(
        experiment,
        rounds=rounds,
        record_every=every,
        checkpoint_every=max(rounds // every // checkpoints, 1) * every,
        keep_best=keep_best,
    )


def _for_speed(experiment: Experiment) -> Experiment:
    """Ten lines of metrics and one checkpoint, at the end: everything else is in the way of a measurement."""
    every = max(experiment.rounds // 10, 1)
    return replace(
        experiment, rounds=10 * every, record_every=every, checkpoint_every=10 * every, keep_best=False
    )


def _with_seeds(trainings: Trainings, seeds: int) -> Trainings:
    return {name: replace(each, seeds=seeds) for name, each in trainings.items()}


def _few(scale: Scale, seeds: int, most: int) -> int:
    """Seeds of a training that quick would take too long with all of them."""
    return min(seeds, most) if scale == "quick" else seeds
