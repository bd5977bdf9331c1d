"""Nothing is imported before it is used. What may import what is a matter of import-linter (pyproject.toml)."""

import re
import subprocess
import sys

import pytest

import gossamer
from gossamer import catalogue

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
        "import gossamer.evaluation.evaluate, gossamer.train, gossamer\n"
        "for name in gossamer.__all__: print(name, getattr(gossamer, name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "module" not in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()] == gossamer.__all__
    assert set(gossamer.__all__) <= set(dir(gossamer))
    assert not hasattr(gossamer, "trian")


def test_every_name_of_the_catalogue_is_implemented():
    from gossamer import mixing, recipes, topologies
    from gossamer_papers.registry import REPRODUCTIONS

    assert list(catalogue.RECIPES) == list(recipes.RECIPES)
    assert list(catalogue.REPRODUCTIONS) == list(REPRODUCTIONS)
    assert list(catalogue.TOPOLOGIES) == list(topologies.NAMES)
    assert list(catalogue.WEIGHT_RULES) == list(mixing.RULES)
