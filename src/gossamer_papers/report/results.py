"""Reads folders of results, those of reproductions and those of other learning. It judges nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from gossamer.errors import InputError
from gossamer_papers.protocol import Claim, Training, Verdict
from gossamer_papers.published import entries

_PACKAGES = ("gossamer", "jax", "jaxlib", "flax", "optax", "numpy")


class Result(NamedTuple):
    """What a reproduction has left in its folder; ``date`` and ``picture`` are None where there is none.

    ``judged`` says when and with what revision its data were judged anew, by rules that came after them.
    """

    folder: Path
    name: str
    scale: str
    seeds: int
    claims: tuple[Claim, ...]
    data: Mapping[str, Any]
    trainings: tuple[Training, ...]
    machine: str
    versions: str
    date: str | None
    judged: str | None
    picture: Path | None

    @property
    def command(self) -> str:
        """What makes it."""
        return f"gossamer reproduce {self.name} --scale {self.scale} --seeds {self.seeds}"


class Learning(NamedTuple):
    """A result that reproduces nothing: by training, how many rounds it took and the return it ended with."""

    folder: Path
    command: str
    machine: str
    date: str
    returns: Mapping[str, tuple[int, float]]


class Results(NamedTuple):
    """All that a folder holds, by name."""

    reproductions: Mapping[str, Result]
    learning: tuple[Learning, ...]


def read_results(folder: Path) -> Results:
    """Results of every folder with a ``summary.json``, in the order of names.

    Raises:
        InputError: there is none, or one is damaged or of something that the papers do not have.

    Example:
        >>> read_results(Path("nowhere"))
        Traceback (most recent call last):
        gossamer.errors.InputError: nowhere is no folder of results; give one that gossamer reproduce has written to
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of results; give one that gossamer reproduce has written to")
    paths = sorted(folder.glob("*/summary.json"))
    if not paths:
        raise InputError(f"{folder} holds no results; gossamer reproduce NAME --out {folder} makes some")
    reproductions, learning = {}, []
    for path in paths:
        summary = _read(path)
        try:
            if "claims" in summary:
                reproductions[path.parent.name] = _reproduction(path.parent, summary)
            else:
                learning.append(_learning(path.parent, summary))
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return Results(reproductions, tuple(learning))


def _read(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); make it readable or remove its folder"
        ) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(summary, dict):
        raise _damaged(path, f"it is a {type(summary).__name__}, not an object")
    return summary


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is damaged ({why}); make it again with gossamer reproduce, or remove its folder"
    )


def _reproduction(folder: Path, summary: Mapping[str, Any]) -> Result:
    known = {entry.reproduction for entry in entries()}
    if summary["name"] not in known or summary["name"] != folder.name:
        raise ValueError(f"its name is {summary['name']!r} where {folder.name!r} was expected")
    claims = tuple(
        Claim(
            str(each["text"]), each["verdict"], str(each["evidence"]), each.get("unpublished", False) is True
        )
        for each in summary["claims"]
    )
    for claim in claims:
        if claim.verdict not in get_args(Verdict):
            raise ValueError(f"{claim.verdict!r} is no verdict; it is one of {', '.join(get_args(Verdict))}")
    origin = summary["provenance"]
    picture = folder / "picture.png"
    return Result(
        folder=folder,
        name=summary["name"],
        scale=str(summary["scale"]),
        seeds=int(summary["seeds"]),
        claims=claims,
        data=dict(summary["data"]),
        trainings=tuple(Training(**each) for each in summary["sizes"]),
        machine=_machine(origin),
        versions=_versions(origin),
        date=summary.get("date"),
        judged=_judged(summary.get("judged")),
        picture=picture if picture.exists() else None,
    )


def _judged(anew: Mapping[str, Any] | None) -> str | None:
    return (
        None if anew is None else f"{anew['date']}, from {anew['from']}, revision {anew['git_revision'][:12]}"
    )


def _machine(origin: Mapping[str, Any]) -> str:
    processor = f"{origin['processor']}, {origin['cores']} cores"
    return f"{processor}, {origin['platform']}, {origin['device_count']} × {origin['device_kind']}"


def _versions(origin: Mapping[str, Any]) -> str:
    packages = [f"{name} {origin[name]}" for name in ("python", *_PACKAGES) if origin.get(name)]
    return ", ".join([*packages, f"revision {str(origin.get('git_revision') or 'unknown')[:12]}"])


def _learning(folder: Path, summary: Mapping[str, Any]) -> Learning:
    machine = summary["machine"]
    return Learning(
        folder=folder,
        command=str(summary["command"]),
        machine=f"{machine['processor']}, {machine['cores']} cores, {machine['device']}",
        date=str(machine["date"]),
        returns={
            name: (int(each["rounds"]), float(each["return_last_rounds_mean"]))
            for name, each in summary["variants"].items()
        },
    )
