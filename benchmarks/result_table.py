"""One table of all that was measured about speed, made from the JSON files beside it.

    python -m benchmarks.result_table

It measures nothing. A benchmark joins by a line in ``SECTIONS``; files that have none are listed by name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Section:
    """Rows of a result file: where they lie in it, what names each of them, and which figures are shown."""

    file: str
    path: tuple[str, ...]
    names: tuple[str, ...]
    figures: tuple[str, ...]


SECTIONS = (
    Section(
        "peers",
        ("speed",),
        ("environment", "contender", "horizon", "cores"),
        ("env_steps_per_second", "env_steps_per_processor_second", "start_seconds"),
    ),
    Section("peers", ("targets",), ("environment", "horizon", "figure"), ("reached", "target", "holds")),
    Section(
        "time_to_result", ("results",), ("environment", "contender"), ("seconds", "reached", "ratio_to_ours")
    ),
    Section("time_to_result", ("targets",), ("environment", "contender"), ("reached", "target", "holds")),
    Section(
        "control",
        ("speed",),
        ("agents", "width", "episodes_per_environment"),
        ("env_steps_per_second", "fraction_of_limit"),
    ),
    Section("pong", ("speed",), ("contender",), ("env_steps_per_second", "start_seconds")),
    Section(
        "gala",
        ("cpu", "frames_per_second", "rows"),
        ("method",),
        ("env_steps_per_second", "frames_per_second"),
    ),
    Section(
        "gala",
        ("device", "frames_per_second", "rows"),
        ("method",),
        ("env_steps_per_second", "frames_per_second"),
    ),
    Section(
        "imperfect", ("cost",), ("schedule", "horizon"), ("seconds_per_round", "round_relative_to_plain")
    ),
    Section("network", ("throughput",), ("size", "contender"), ("megabytes_per_second", "share_of_socket")),
    Section("network", ("targets",), ("target", "size"), ("reached", "least", "most", "holds")),
    Section("convolutions", ("rounds",), ("way",), ("act_16_ms", "update_16_ms", "round_16_ms")),
)


def main() -> None:
    print(write_table(RESULTS, RESULTS.parent / "RESULTS.md"))


def publish(result: dict[str, Any], path: Path) -> None:
    """Write a result to its file, and the table of all results anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, default=float) + "\n")
    print(f"\n{path}")
    print(write_table(RESULTS, RESULTS.parent / "RESULTS.md"))


def write_table(results: Path, path: Path) -> Path:
    """The table of all files in a folder, as Markdown."""
    path.write_text("\n".join(lines(results)) + "\n")
    return path


def lines(results: Path) -> Iterator[str]:
    """Of the page."""
    yield "# What was measured about speed"
    yield ""
    yield "Written by `python -m benchmarks.result_table` from the files in [`results`](results), which hold more."
    shown = dict.fromkeys(section.file for section in SECTIONS)
    for name in shown:
        path = results / f"{name}.json"
        if path.exists():
            yield from _of_file(name, json.loads(path.read_text()))
    others = sorted(path.name for path in results.glob("*.json") if path.stem not in shown)
    if others:
        yield ""
        yield "Not about speed: " + ", ".join(f"[`{other}`](results/{other})" for other in others) + "."


def _of_file(name: str, result: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"## [{name}.json](results/{name}.json)"
    last = ""
    for section in (each for each in SECTIONS if each.file == name):
        holders = _along(result, section.path)
        if not holders:
            continue
        told = {key: value for holder in holders if isinstance(holder, dict) for key, value in holder.items()}
        origin = f"`{told.get('command', 'command not recorded')}`; {_machine(told.get('machine', {}))}"
        if origin != last:
            yield ""
            yield origin
        last = origin
        yield ""
        yield f"| {' | '.join(section.names + section.figures)} |"
        yield "|" + "---|" * len(section.names) + "---:|" * len(section.figures)
        for row in holders[-1]:
            yield f"| {' | '.join(_shown(row.get(column)) for column in section.names + section.figures)} |"


def _along(result: dict[str, Any], path: tuple[str, ...]) -> list[Any]:
    """What is met on the way to the rows, which come last; nothing if the way ends before."""
    met: list[Any] = [result]
    for name in path:
        if not isinstance(met[-1], dict) or name not in met[-1]:
            return []
        met.append(met[-1][name])
    return met


def _machine(machine: dict[str, Any]) -> str:
    """Date, processor and versions, in one line; other people's packages are those of the virtual environments."""
    if not machine:
        return "machine not recorded"
    first = (str(machine.get("date", "no date")), str(machine.get("processor") or machine.get("device")))
    cores = f"{machine.get('cores', '?')} cores"
    versions = {name: machine[name] for name in ("python", "gossamer", "jax") if name in machine}
    for packages in (*machine.get("peers", {}).values(), machine.get("peer", {})):
        versions |= {name: number for name, number in packages.items() if name in _PEERS}
    return ", ".join((*first, cores, *(f"{name} {number}" for name, number in versions.items())))


_PEERS = ("stable_baselines3", "torch", "skrl", "rejax", "gymnax", "gymnasium", "ale-py", "mujoco")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and "median" in value:
        each = value.get("each", [value["median"]])
        return f"{_shown(value['median'])} ({_shown(min(each))} to {_shown(max(each))})"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


if __name__ == "__main__":
    main()
