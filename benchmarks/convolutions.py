"""What an update of A2C on frames costs on a CPU: compiler options, glibc's allocator, layout and precision.

    python -m benchmarks.convolutions [--quick] [--out benchmarks/results/convolutions.json]

A round is five forward passes to act in 16 or 64 simulators and an update with their 5 steps, of GALA's network
(84×84×4, 1.7 million parameters). Figures are medians over turns, and least values beside them, which other work on
the machine hits least; processor time is that of all threads. Kept memory needs a process of its own, since it cannot
be undone, so each way runs in one, several times in turn. PyTorch runs in ``runs/peers/venv-sb3`` if that is there
(``python -m benchmarks.peers`` makes it).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.control import machine, show
from gossamer.algorithms import A2C, descend
from gossamer.system.compilation import FAST_CONVOLUTIONS, keep_memory_mapped
from gossamer.types import Discrete, Frames, Key, Learner, Params, Spaces, Trajectory

FRAMES = Frames(stack=4, height=84, width=84)
SPACES = Spaces(FRAMES.size, Discrete(6), FRAMES)
GALA = A2C(hidden=(512,), activation="relu", network="nature", epsilon=0.01, reward_clip=1.0)
A2C_ON_FRAMES = GALA.bind(SPACES)
STEPS, SIMULATORS = 5, (16, 64)
PROCESSES, REPEATS = 3, 9
ROOT = Path(__file__).parents[1]
TORCH = ROOT / "runs" / "peers" / "venv-sb3" / "bin" / "python"
WAYS = ("default", "options", "options, memory kept", "options, memory kept, bfloat16", "pytorch")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one process each, of three repeats")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "convolutions.json")
    parser.add_argument("--way", choices=(*WAYS, "parts"), help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=REPEATS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        measured = (
            parts(arguments.repeats) if arguments.way == "parts" else way(arguments.way, arguments.repeats)
        )
        print(json.dumps(measured))
        return
    processes, repeats = (1, 3) if arguments.quick else (PROCESSES, REPEATS)
    ways = [name for name in WAYS if name != "pytorch" or TORCH.exists()]
    told = [(name, in_new_process(name, repeats)) for _ in range(processes) for name in ways]
    measured_parts = in_new_process("parts", repeats)
    result = {
        "command": "python -m benchmarks.convolutions" + (" --quick" if arguments.quick else ""),
        "machine": machine() | {"load_average_at_end": os.getloadavg()[1]},
        "rounds": [summarise(name, [each for other, each in told if other == name]) for name in ways],
        "parts": measured_parts,
    }
    show("machine", [result["machine"]])
    show("milliseconds (least)", result["rounds"])
    show("parts, milliseconds (least) of wall time", result["parts"])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1, default=float) + "\n")
    print(f"\n{arguments.out}")


def in_new_process(name: str, repeats: int) -> Any:
    print(name, file=sys.stderr)
    if name == "pytorch":
        program = [TORCH, ROOT / "benchmarks" / "peer_programs" / "torch_a2c_update.py", str(repeats)]
    else:
        program = [sys.executable, "-m", "benchmarks.convolutions", "--way", name, "--repeats", str(repeats)]
    finished = subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout.splitlines()[-1])


def summarise(name: str, told: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Medians and least values over all processes of a way."""
    row: dict[str, Any] = {"way": name}
    for figure in told[0]:
        values = [value for each in told for value in each[figure]]
        row[figure] = statistics.median(values)
        row[f"{figure}_least"] = min(values)
    return row


def way(name: str, repeats: int) -> dict[str, list[float]]:
    """Times of acting, of an update, and of a whole round, in this process."""
    if "memory kept" in name:
        keep_memory_mapped()
    options = None if name == "default" else FAST_CONVOLUTIONS
    a2c = A2C_ON_FRAMES if "bfloat16" not in name else replace(GALA, precision="bfloat16").bind(SPACES)
    learner = jax.jit(a2c.init)(jax.random.key(0))
    act = jax.jit(act_for_all, compiler_options=options)
    update = jax.jit(descend, compiler_options=options)
    key, figures = jax.random.key(1), {}
    for simulators in SIMULATORS:
        batch = trajectory(simulators)

        def acting(batch: Trajectory = batch) -> Any:
            return act(a2c, learner.params, key, batch.observation[0])

        def updating(batch: Trajectory = batch) -> Any:
            return update(a2c, learner, batch, key)

        def a_round(acting: Callable[[], Any] = acting, updating: Callable[[], Any] = updating) -> Learner:
            for _ in range(STEPS):
                jax.block_until_ready(acting())
            return updating()[0]

        for figure, work in (("act", acting), ("update", updating), ("round", a_round)):
            figures |= times(f"{figure}_{simulators}", work, repeats)
    figures["peak_memory_MiB"] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
    return figures


def act_for_all(a2c: A2C, params: Params, key: Key, observations: jax.Array) -> Any:
    return jax.vmap(a2c.act, in_axes=(None, 0, 0))(
        params, jax.random.split(key, len(observations)), observations
    )


def trajectory(simulators: int) -> Trajectory:
    """Random frames that follow each other, no episode ending among them."""
    draw = np.random.default_rng(0)
    seen = jnp.asarray(draw.integers(0, 256, (STEPS + 1, simulators, FRAMES.size), dtype=np.uint8))
    return Trajectory.padding(STEPS, simulators)._replace(
        observation=seen[:-1],
        next_observation=seen[1:],
        action=jnp.asarray(draw.integers(0, 6, (STEPS, simulators))),
        reward=jnp.asarray(draw.normal(size=(STEPS, simulators)), jnp.float32),
        mask=jnp.ones((STEPS, simulators), bool),
    )


def times(figure: str, work: Callable[[], Any], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of the clock and of processors, of each repeat after one that is not counted."""
    jax.block_until_ready(work())
    clock, processors = [], []
    for _ in range(repeats):
        started, busy = time.perf_counter(), time.process_time()
        jax.block_until_ready(work())
        clock.append(1e3 * (time.perf_counter() - started))
        processors.append(1e3 * (time.process_time() - busy))
    return {f"{figure}_ms": clock, f"{figure}_processor_ms": processors}


def parts(repeats: int) -> list[dict[str, Any]]:
    """Layouts at top level and in a loop, and the optimiser's step alone, with options and kept memory."""
    keep_memory_mapped()
    learner = jax.jit(A2C_ON_FRAMES.init)(jax.random.key(0))
    kernels = [learner.params.network["params"][f"convolutions_{index}"]["kernel"] for index in range(3)]
    images = trajectory(SIMULATORS[-1]).observation[0].reshape(-1, 4, 84, 84)
    rows = []
    for layout in ("NHWC", "NCHW"):
        for place, wrapped in (("top level", convolve), ("in a loop", convolve_in_loop)):
            program = jax.jit(wrapped, static_argnames="layout", compiler_options=FAST_CONVOLUTIONS)
            measured = times("ms", partial(program, kernels, images, layout=layout), repeats)
            rows.append(_part(f"three convolutions of 64 images, {layout}, {place}", measured["ms_ms"]))
    batch = trajectory(SIMULATORS[0])
    shapes, _ = jax.eval_shape(A2C_ON_FRAMES.gradient, learner, batch, jax.random.key(0))
    gradient = jax.tree.map(jnp.ones_like, shapes)
    apply = jax.jit(lambda a2c, learner, gradient: a2c.apply(learner, gradient))
    measured = times("ms", lambda: apply(A2C_ON_FRAMES, learner, gradient), repeats)
    rows.append(_part("clipping, RMSProp and its step, 1.7 million parameters", measured["ms_ms"]))
    initialise = jax.jit(A2C_ON_FRAMES.init)
    measured = times("ms", lambda: initialise(jax.random.key(0)), repeats)
    rows.append(_part("initial parameters", measured["ms_ms"]))
    return rows


def convolve(kernels: Iterable[jax.Array], images: jax.Array, *, layout: str) -> jax.Array:
    x = images.transpose(0, 2, 3, 1) if layout == "NHWC" else images
    x = x.astype(jnp.float32) / 255
    for kernel, stride in zip(kernels, (4, 2, 1), strict=True):
        numbers = (layout, "HWIO", layout)
        x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=numbers)
        x = jax.nn.relu(x)
    return x


def convolve_in_loop(kernels: Iterable[jax.Array], images: jax.Array, *, layout: str) -> jax.Array:
    """The same as the body of a loop of one turn."""
    return jax.lax.map(lambda each: convolve(kernels, each, layout=layout), images[None])


def _part(name: str, milliseconds: list[float]) -> dict[str, Any]:
    return {"part": name, "ms": statistics.median(milliseconds), "ms_least": min(milliseconds)}


if __name__ == "__main__":
    main()
