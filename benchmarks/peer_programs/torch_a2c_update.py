"""PyTorch's time for what ``benchmarks/convolutions.py`` measures: acting, an update of A2C on frames, both.

python benchmarks/peer_programs/torch_a2c_update.py REPEATS
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

STEPS, SIMULATORS, ACTIONS = 5, (16, 64), 6


class Nature(nn.Module):
    """Three convolutions, a hidden layer of 512, two heads."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Sequential(
            *(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU()),
        )
        self.policy, self.value = nn.Linear(512, ACTIONS), nn.Linear(512, 1)

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.shared(frames.float() / 255)
        return self.policy(features), self.value(features)[:, 0]


def main() -> None:
    torch.manual_seed(0)
    network, figures = Nature(), {}
    optimiser = torch.optim.RMSprop(network.parameters(), lr=7e-4, alpha=0.99, eps=0.01)
    for simulators in SIMULATORS:
        frames = torch.randint(0, 256, (STEPS + 1, simulators, 4, 84, 84), dtype=torch.uint8)
        action = torch.randint(0, ACTIONS, (STEPS * simulators,))
        reward = torch.randn(STEPS, simulators).clamp(-1, 1)

        def acting(frames: torch.Tensor = frames) -> None:
            with torch.no_grad():
                torch.distributions.Categorical(logits=network(frames[0])[0]).sample()

        def updating(
            frames: torch.Tensor = frames, action: torch.Tensor = action, reward: torch.Tensor = reward
        ) -> None:
            update(network, optimiser, frames, action, reward)

        def a_round(acting: Callable[[], None] = acting, updating: Callable[[], None] = updating) -> None:
            for _ in range(STEPS):
                acting()
            updating()

        for figure, work in (("act", acting), ("update", updating), ("round", a_round)):
            figures |= times(f"{figure}_{simulators}", work, int(sys.argv[1]))
    figures["peak_memory_MiB"] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
    print(json.dumps(figures))


def update(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    frames: torch.Tensor,
    action: torch.Tensor,
    reward: torch.Tensor,
) -> None:
    """One step on n-step returns, which bootstrap from the last frames."""
    logits, value = network(frames[:-1].flatten(0, 1))
    with torch.no_grad():
        following, targets = network(frames[-1])[1], []
        for earned in reversed(reward):
            following = earned + 0.99 * following
            targets.append(following)
        target = torch.cat(targets[::-1])
    policy = torch.distributions.Categorical(logits=logits)
    advantage = target - value.detach()
    loss = (
        -policy.log_prob(action) * advantage + 0.5 * (value - target) ** 2 - 0.01 * policy.entropy()
    ).mean()
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 0.5)
    optimiser.step()


def times(figure: str, work: Callable[[], None], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of the clock and of processors, of each repeat after one that is not counted."""
    work()
    clock, processors = [], []
    for _ in range(repeats):
        started, busy = time.perf_counter(), time.process_time()
        work()
        clock.append(1e3 * (time.perf_counter() - started))
        processors.append(1e3 * (time.process_time() - busy))
    return {f"{figure}_ms": clock, f"{figure}_processor_ms": processors}


if __name__ == "__main__":
    main()
