"""Imports point one way: a module may import only what stands above it in this list.

What runs algorithms knows their contract and none of them; what is heavy and optional is imported where it is named.
"""

import ast
import graphlib
import re
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
    "recipes",
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
}
TOP = {"__init__", "__main__"}
# The one import that leads back: a launch on a cluster is resumed there, by what builds on launches.
LEADS_BACK = {("gossamer.fleet.launch", "gossamer.fleet.cluster")}
# Who runs whatever algorithm is given; of ``algorithms`` they may know the contract alone.
RUN_ANY_ALGORITHM = {"rounds", "runtimes", "experiment", "engines", "play", "fleet", "train"}
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


def imported_names(source: str, package: str) -> set[str]:
    """Dotted names of all that a module of ``package`` imports, wherever in it: ``from a import b`` is ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            parts = [*parents, *([node.module] if node.module else [])]
            found.update(".".join([*parts, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found.update(each.value for each in node.args[:1] if isinstance(each, ast.Constant))
    return found


def names_in(path: Path) -> set[str]:
    own = module_of(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    return imported_names(path.read_text(), package)


def imported_layers(path: Path) -> set[str]:
    return {name.split(".")[1] for name in names_in(path) if name.startswith("gossamer.")}


def concrete_algorithms(names: set[str]) -> set[str]:
    """Those of ``gossamer.algorithms`` that are not of its contract; the package itself offers all of them."""
    below = {name for name in names if f"{name}.".startswith("gossamer.algorithms.")}
    return {name for name in below if not f"{name}.".startswith(f"{CONTRACT}.")}


def optional_packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names} & set(OPTIONAL)


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


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if layer_of(path) in RUN_ANY_ALGORITHM],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_runs_algorithms_imports_their_contract_alone(path):
    assert not concrete_algorithms(names_in(path))


@pytest.mark.parametrize(
    "source",
    [
        "from gossamer.algorithms import A2C",
        "from gossamer.algorithms import Averaging, protocol",  # the package offers all algorithms
        "from gossamer.algorithms.a2c import A2C",
        "from gossamer.algorithms.hyperparameters import traced",
        "from gossamer import algorithms",
        "from gossamer import algorithms as contract",
        "import gossamer.algorithms",
        "import gossamer.algorithms.siac as siac",
        "from ..algorithms import SiAC",
        "from ..algorithms.siac import SiAC",
        "from .. import algorithms",
        "def later():\n    from gossamer.algorithms.impala import Impala",
        "import importlib\nimportlib.import_module('gossamer.algorithms.impala')",
    ],
)
def test_a_concrete_algorithm_is_found_however_it_is_imported(source):
    assert concrete_algorithms(imported_names(source, "gossamer.runtimes"))


@pytest.mark.parametrize(
    "source",
    [
        "from gossamer.algorithms.protocol import Algorithm, adapt",
        "from gossamer.algorithms import protocol",
        "import gossamer.algorithms.protocol",
        "from ..algorithms.protocol import Algorithm",
        "from gossamer.experience import Steps",
        "from .algorithms import A2C",  # a folder of another package
        '"""from gossamer.algorithms import A2C"""',
    ],
)
def test_the_contract_is_no_concrete_algorithm(source):
    assert not concrete_algorithms(imported_names(source, "gossamer.runtimes"))


def test_optional_packages_are_imported_where_they_are_named():
    sources = sorted([*ROOT.rglob("*.py"), *(ROOT.parent / "gossamer_gymnasium").rglob("*.py")])
    imported = {
        path.relative_to(ROOT.parent).as_posix(): optional_packages(names_in(path)) for path in sources
    }
    assert {
        package: {file for file in imported if package in imported[file]} for package in OPTIONAL
    } == OPTIONAL


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import ray", "ray"),
        ("import ray.util as util", "ray"),
        ("try:\n    import zenoh\nexcept ImportError:\n    zenoh = None", "zenoh"),
        ("def later():\n    from ale_py.vector_env import AtariVectorEnv", "ale_py"),
        ("import jax, mujoco.batch", "mujoco"),
        ("from gymnasium import spaces", "gymnasium"),
        ("from importlib import import_module\nimport_module('ray.util')", "ray"),
    ],
)
def test_an_optional_package_is_found_however_it_is_imported(source, package):
    assert optional_packages(imported_names(source, "gossamer.runtimes")) == {package}


@pytest.mark.parametrize(
    "source", ["from gossamer.environments import gymnasium", "from .ray import Cluster", "import rayon"]
)
def test_modules_of_ours_are_no_optional_packages(source):
    assert not optional_packages(imported_names(source, "gossamer.runtimes"))


def test_modules_of_a_layer_import_one_another_one_way():
    modules = {module_of(path): path for path in SOURCES}
    graph = {
        module: {
            parent
            for name in names_in(path)
            for parent in (name, name.rpartition(".")[0])
            if parent in modules and parent != module and (module, parent) not in LEADS_BACK
        }
        for module, path in modules.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


COMMAND_LINE = sorted((ROOT / "cli").glob("*.py"))


@pytest.mark.parametrize("path", COMMAND_LINE, ids=lambda path: path.name)
def test_the_command_line_brings_in_only_itself(path):
    """What a command needs is imported inside it: none waits for what another needs, or fails for want of it."""
    tree = ast.parse(path.read_text())
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    modules = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {"jax", "numpy", "matplotlib", "rich"} & {name.partition(".")[0] for name in names | modules}
    ours = {module for module in names | modules if module.startswith("gossamer")}
    assert all(module == "gossamer.errors" or module.startswith("gossamer.cli.") for module in ours)


IN_THE_COMMAND_LINE = [
    "parse",
    "catalogue",
    "train",
    "analysis",
    "reproduce",
    "theory",
    "fleet",
    "keys",
    "doctor",
    "entry",
]


def test_imports_in_the_command_line_point_up():
    assert {path.stem for path in COMMAND_LINE} == {"__init__", *IN_THE_COMMAND_LINE}
    for place, name in enumerate(IN_THE_COMMAND_LINE):
        found = re.findall(
            r"^from gossamer\.cli\.(\w+) import", (ROOT / "cli" / f"{name}.py").read_text(), re.M
        )
        assert set(found) <= set(IN_THE_COMMAND_LINE[:place]), name
