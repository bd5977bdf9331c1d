"""Generated tables of measured numbers in README.md and docs/, from the committed results.

    python -m benchmarks.tables [--check]

Everything between ``<!-- begin generated: TABLE -->`` and ``<!-- end generated -->`` is replaced. TABLE is a name in
``TABLES`` or ``FILE PATH | key: title; key; key=value; ...``: a row for each entry of the list at PATH in
``benchmarks/results/FILE.json`` (whose ``key`` is ``value``), or, without PATH, a row for the value at each key.
``--check`` writes nothing and exits with status 1 if a page is stale. Nothing is measured here.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.errors import InputError

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- begin generated: (.*?) -->\n).*?(<!-- end generated -->)", re.S)
NUMBER = re.compile(r"[-−\d.,%]*( \(.*\))?")
VERDICTS = ("holds", "does not hold", "not decided", "not run")
VERSIONS = re.compile("python|gossamer|jax|stable_baselines3|torch|skrl|rejax|gymnax|mujoco|ale-py")


class Table(NamedTuple):
    """Column titles, rows of values, and one line about their origin."""

    titles: Sequence[str]
    rows: Iterable[Sequence[Any]]
    origin: str


def read(path: str) -> Any:
    """A JSON file of results, by its path from the root of the repository."""
    return json.loads((ROOT / path).read_text())


def along(result: Any, path: str) -> Any:
    """The value at ``key/key/...``."""
    for key in path.split("/"):
        result = result[key]
    return result


def origin(path: str, result: Mapping[str, Any]) -> str:
    """File, command, date, processor and versions of a result."""
    machine = result.get("machine", {})
    versions = {**result.get("provenance", {}), **machine, **machine.get("peer", {})}
    for peer in machine.get("peers", {}).values():
        versions |= peer
    parts = [f"`{path}`", f"`{result['command']}`" if "command" in result else ""]
    if machine:
        processor = machine.get("processor") or machine["device"]
        parts.append(f"{machine['date']}, {processor}, {machine['cores']} cores")
    parts.append(", ".join(f"{name} {versions[name]}" for name in versions if VERSIONS.fullmatch(name)))
    return "; ".join(part for part in parts if part)


def table_of(name: str, path: str, columns: str) -> Table:
    """Rows of a benchmark's result; ``key`` may be a path of keys, and its title defaults to its words."""
    titles, only = {}, {}
    for column in columns.split(";"):
        key, equals, value = column.strip().partition("=")
        if equals:
            only[key] = value
        else:
            key, _, title = key.partition(":")
            titles[key] = title.strip() or key.replace("_", " ")
    file = f"benchmarks/results/{name}.json"
    result = read(file)
    if not path:
        rows = [(title, along(result, key)) for key, title in titles.items()]
        return Table(("", ""), rows, origin(file, result))
    entries = [each for each in along(result, path) if only.items() <= each.items()]
    if "command" not in result and "/" in path:  # gala.json has a part for each device
        result = along(result, path.rpartition("/")[0])
    rows = [[each.get(key) for key in titles] for each in entries]
    return Table([*titles.values()], rows, origin(file, result))


def learning(name: str, decimals: int) -> Table:
    """Returns at the end of training of the variants that ``benchmarks.learning`` trained."""
    result, rows = read(f"results/{name}/summary.json"), []
    for variant, each in result["variants"].items():
        numbers = each["return_last_rounds_mean"], *each["return_last_rounds_interval_95"]
        mean, low, high = (f"{number:,.{decimals}f}" for number in numbers)
        seeds = len(each["return_last_rounds_per_seed"])
        rows.append((variant, each["rounds"], seeds, f"{mean} ({low} to {high})" if seeds > 1 else mean))
    titles = ("variant", "rounds", "seeds", "mean return at the end (95 % interval over seeds)")
    return Table(titles, rows, origin(f"results/{name}/summary.json", result))


def speed() -> Table:
    """One row per library: the best throughput of one core and two, and seconds until a return is reached."""
    files = [f"benchmarks/results/{name}.json" for name in ("peers", "time_to_result")]
    peers, timed = map(read, files)

    def cells(contender: str, in_time: str) -> Iterable[float | None]:
        for task in ("acrobot", "hopper"):
            like = {"environment": task, "contender": contender, "horizon": 60}
            rates = [e["env_steps_per_second"] for e in peers["speed"] if like.items() <= e.items()]
            yield max(rates, default=None)
        for task in ("cartpole", "acrobot"):
            like = {"environment": task, "contender": in_time}
            yield next((e["seconds"] for e in timed["results"] if like.items() <= e.items()), None)

    rows = [
        ("**gossamer**, 25 agents on a graph", *cells("gossamer, 25 agents", "gossamer, 25 agents")),
        ("gossamer, first run on a machine", *cells("", "gossamer, 25 agents, first run")),
        ("stable-baselines3, A2C", *cells("stable-baselines3", "stable-baselines3, A2C")),
        ("skrl, A2C, on our simulators", *cells("skrl, our simulators", "skrl, A2C")),
        ("rejax, PPO as A2C", *cells("rejax, PPO as A2C", "")),
    ]
    titles = ("", "Acrobot, env-steps/s", "Hopper, env-steps/s", "balance to 190, s", "Acrobot to −100, s")
    processors = " and ".join(dict.fromkeys(each["machine"]["processor"] for each in (peers, timed)))
    where = ", ".join(f"`{file}`" for file in files)
    return Table(titles, rows, f"{where}; two cores ({processors}), no accelerator")


def verdicts() -> Table:
    """Claims of each reproduction, the papers' and ours, counted by verdict."""
    rows = []
    for path in sorted((ROOT / "results").glob("*/summary.json")):
        each = json.loads(path.read_text())
        given = [claim["verdict"] for claim in each.get("claims", ())]
        if given:
            rows.append((f"`{each['name']}`", each["title"], each["scale"], *map(given.count, VERDICTS)))
    return Table(("", "", "scale", *VERDICTS), rows, "`results/*/summary.json`")


TABLES: Mapping[str, Callable[[], Table]] = {
    "speed": speed,
    "verdicts": verdicts,
    "balance": lambda: learning("balance", 1),
    "pendulum": lambda: learning("pendulum", 0),
    "pong returns": lambda: learning("pong", 1),
}


def shown(value: Any) -> str:
    """A value as it stands in a cell; the range of repetitions in parentheses."""
    if isinstance(value, dict):
        each = [shown(x) for x in (min(value["each"]), max(value["each"]))]
        return shown(value["median"]) + (f" ({' to '.join(each)})" if each[0] != each[1] else "")
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def markdown(table: Table) -> str:
    """A table in Markdown, its origin beneath it."""
    rows = [[shown(value) for value in row] for row in table.rows]
    columns = zip(*rows, strict=True)
    sides = ["---:" if all(map(NUMBER.fullmatch, column)) else "---" for column in columns]
    lines = [f"| {' | '.join(cells)} |" for cells in (table.titles, sides, *rows)]
    return "\n".join(["", *lines, "", f"<small>{table.origin}</small>", ""]) + "\n"


def current(text: str) -> str:
    """The text of a page with every generated block as the results have it."""

    def block(match: re.Match[str]) -> str:
        begin, asked, end = match.groups()
        place, columns = (" ".join(part.split()) for part in asked.partition("|")[::2])
        name, _, path = place.partition(" ")
        if place not in TABLES and not (RESULTS / f"{name}.json").is_file():
            raise InputError(f"{place!r} is neither a file in {RESULTS} nor one of {', '.join(TABLES)}")
        table = TABLES[place]() if place in TABLES else table_of(name, path, columns)
        return begin + markdown(table) + end

    return BLOCK.sub(block, text)


def stale() -> dict[Path, str]:
    """Pages whose tables are not what the results say, with the text that they should have."""
    paths = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    pages = {path: path.read_text() for path in paths}
    return {path: new for path, text in pages.items() if (new := current(text)) != text}


def write(pages: Mapping[Path, str]) -> None:
    """Write pages and print their paths."""
    for path, text in pages.items():
        path.write_text(text)
        print(path.relative_to(ROOT))


def publish(result: Mapping[str, Any], path: Path) -> None:
    """Write the result of a benchmark to its file, and the tables that show it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, default=float) + "\n")
    print(f"\n{path}")
    write(stale())


def main() -> None:
    """Write or check all pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a page is stale")
    check, pages = parser.parse_args().check, stale()
    if not check:
        return write(pages)
    for path in pages:
        print(f"{path.relative_to(ROOT)} is stale; run: make tables")
    raise SystemExit(1 if pages else 0)


if __name__ == "__main__":
    main()
