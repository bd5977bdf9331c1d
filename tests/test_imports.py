"""Imports point one way: a module may import only what stands above it in this list, and nothing before it is used.

What runs algorithms knows their contract and none of them; what is heavy and optional is imported where it is named.
"""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer
from gossamer import catalogue

ROOT = Path(gossamer.__file__).parent

LAYERS = [
    "catalogue",
    "errors",
    "specs",
    "claiming",
    "keys",
    "memory",
    "processes",
    "stopping",
    "types",
    "certificate",
    "correlation",
    "compilation",
    "compilation_cache",
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
    "description",
    "recipes",
    "parts",
    "engines",
    "recording",
    "progress",
    "play",
    "fleet",
    "train",
    "analysis",
    "evaluate",
    "policy",
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
    "experiment": {"topologies", "mixing", "networks"},
}
TOP = {"__init__", "__main__"}
# The one import that leads back: a launch on a cluster is resumed there, by what builds on launches.
LEADS_BACK = {("gossamer.fleet.launch", "gossamer.fleet.cluster")}
# Who runs whatever algorithm is given; of ``algorithms`` they may know the contract alone.
RUN_ANY_ALGORITHM = {"rounds", "runtimes", "experiment", "parts", "engines", "play", "fleet", "train"}
CONTRACT = "gossamer.algorithms.protocol"
# Heavy and optional packages, and every file that imports them.
OPTIONAL = {
    "zenoh": {"gossamer/runtimes/network/session.py", "gossamer/runtimes/network/zenoh_log.py"},
    "ray": {"gossamer/fleet/cluster/connection.py"},
    "mujoco": {"gossamer/environments/hopper.py"},
    "ale_py": {"gossamer/environments/atari.py"},
    "gymnasium": {
        "gossamer/environments/gymnasium.py",
        "gossamer/environments/hopper.py",  # Hopper's body is a file of Gymnasium's
        "gossamer/video.py",  # draws with Gymnasium's renderers
        "gossamer_gymnasium/__init__.py",  # our tasks in Gymnasium's register
        "gossamer_gymnasium/environments.py",
    },
}


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def names_in(path: Path) -> set[str]:
    """Dotted names of all that a module imports, wherever in it: ``from a import b`` is ``a.b``."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            parts = [*parents, *([node.module] if node.module else [])]
            found.update(".".join([*parts, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found.update(each.value for each in node.args[:1] if isinstance(each, ast.Constant))
    return found


SOURCES = {path: names_in(path) for path in sorted(ROOT.rglob("*.py")) if layer_of(path) not in TOP}


def test_imports_point_up():
    assert {layer_of(path) for path in SOURCES} == set(LAYERS)
    wrong = {}
    for path, names in SOURCES.items():
        own = layer_of(path)
        layers = {name.split(".")[1] for name in names if name.startswith("gossamer.")}
        below = layers - set(LAYERS[: LAYERS.index(own) + 1]) | layers & FORBIDDEN.get(own, set())
        if below:
            wrong[module_of(path)] = below
    assert not wrong


def test_what_runs_algorithms_imports_their_contract_alone():
    wrong = {
        (module_of(path), name)
        for path, names in SOURCES.items()
        if layer_of(path) in RUN_ANY_ALGORITHM
        for name in names
        if f"{name}.".startswith("gossamer.algorithms.") and not f"{name}.".startswith(f"{CONTRACT}.")
    }
    assert not wrong


def test_optional_packages_are_imported_where_they_are_named():
    sources = [*ROOT.rglob("*.py"), *(ROOT.parent / "gossamer_gymnasium").rglob("*.py")]
    imported = {path.relative_to(ROOT.parent).as_posix(): names_in(path) for path in sources}
    found = {
        package: {
            file for file, names in imported.items() if package in {name.split(".")[0] for name in names}
        }
        for package in OPTIONAL
    }
    assert found == OPTIONAL


def test_modules_of_a_layer_import_one_another_one_way():
    modules = {module_of(path): names for path, names in SOURCES.items()}
    graph = {
        module: {
            parent
            for name in names
            for parent in (name, name.rpartition(".")[0])
            if parent in modules and parent != module and (module, parent) not in LEADS_BACK
        }
        for module, names in modules.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


HEAVY = {"jax", "flax", "optax", "scipy", "matplotlib", "networkx", "orbax"}
COMMAND = ("-m", "gossamer")


@pytest.mark.parametrize(
    ("arguments", "may"),
    [
        (("-c", "import gossamer"), set()),
        (("-c", "import gossamer; gossamer.InputError, gossamer.__version__"), set()),
        ((*COMMAND, "--version"), set()),
        ((*COMMAND, "--help"), set()),
        ((*COMMAND, "list"), set()),
        ((*COMMAND, "keys"), set()),
        ((*COMMAND, "keys", "init", "--help"), set()),
        ((*COMMAND, "keys", "init", "keys", "--title", "site"), set()),
        ((*COMMAND, "train", "--help"), set()),
        ((*COMMAND, "launch", "--help"), set()),
        ((*COMMAND, "agent", "--help"), set()),
        ((*COMMAND, "trian"), set()),
        ((*COMMAND, "train", "cartpole-balanse"), set()),
        ((*COMMAND, "reproduce", "diffdac-fig9"), set()),
        ((*COMMAND, "train", "cartpole-balance", "--help"), {"jax"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_nothing_heavy_is_imported_before_it_is_used(arguments, may, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    imported = set(re.findall(r"^import time:.*\| +(\w+)", done.stderr, re.M))
    assert "gossamer" in imported
    assert imported & HEAVY <= may


def test_public_names_are_the_functions_and_classes_whichever_module_is_imported_first():
    code = (
        "import gossamer.evaluate, gossamer.train, gossamer\n"
        "for name in gossamer.__all__: print(name, getattr(gossamer, name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "module" not in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()] == gossamer.__all__
    assert set(gossamer.__all__) <= set(dir(gossamer))
    assert not hasattr(gossamer, "trian")


def test_every_name_of_the_catalogue_is_implemented():
    from gossamer import mixing, recipes, reproductions, topologies

    assert list(catalogue.RECIPES) == list(recipes.RECIPES)
    assert list(catalogue.REPRODUCTIONS) == list(reproductions.REPRODUCTIONS)
    assert list(catalogue.TOPOLOGIES) == list(topologies.NAMES)
    assert list(catalogue.WEIGHT_RULES) == list(mixing.RULES)
