"""Imports point one way: a module may import only what stands above it in this list."""

import ast
from pathlib import Path

import pytest

import gossamer

ROOT = Path(gossamer.__file__).parent

LAYERS = [
    "errors",
    "claiming",
    "keys",
    "memory",
    "processes",
    "stopping",
    "types",
    "certificate",
    "correlation",
    "compilation",
    "topologies",
    "mixing",
    "schedules",
    "returns",
    "normalisation",
    "networks",
    "distributions",
    "environments",
    "experience",
    "algorithms",
    "rounds",
    "runtimes",
    "serialization",
    "records",
    "power",
    "checkpoints",
    "experiment",
    "recipes",
    "engines",
    "recording",
    "progress",
    "play",
    "fleet",
    "train",
    "analysis",
    "evaluate",
    "video",
    "theory",
    "reproductions",
    "demo",
    "cli",
]
# Whatever the order above would allow: an algorithm is told how to collect and never collects.
FORBIDDEN = {
    "algorithms": {"environments", "experience"},
    "runtimes": {"environments", "experience"},
    "experience": {"algorithms"},
    "analysis": {"runtimes", "train", "experiment", "algorithms", "environments"},
}
TOP = {"__init__", "__main__"}


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module.split(".")
            if module[0] == "gossamer":
                names = [module[1]] if len(module) > 1 else [alias.name for alias in node.names]
                found.update(names)
        elif isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
            found.update(module[1] for module in modules if module[0] == "gossamer" and len(module) > 1)
    return found


SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if layer_of(path) not in TOP]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_up(path):
    own = layer_of(path)
    assert own in LAYERS, f"{own} has no place in the list of layers"
    above = set(LAYERS[: LAYERS.index(own) + 1])
    wrong = (imported_layers(path) - above) | (imported_layers(path) & FORBIDDEN.get(own, set()))
    assert not wrong, f"{path.name} imports {', '.join(sorted(wrong))}, which stands below it"


def test_every_layer_exists():
    assert {layer_of(path) for path in SOURCES} == set(LAYERS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_runtimes_import_no_concrete_algorithm(path):
    if layer_of(path) not in ("runtimes", "rounds"):
        return
    assert not {"gossamer.algorithms.siac", "gossamer.algorithms.a2c"} & set(path.read_text().split())


def test_top_modules_stay_cheap_to_start():
    """The command line answers --version without jax: heavy imports stand inside its commands."""
    tree = ast.parse((ROOT / "cli.py").read_text())
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {"jax", "numpy", "matplotlib"} & (names | modules)
    assert {module for module in modules if module and module.startswith("gossamer")} == {"gossamer.errors"}
