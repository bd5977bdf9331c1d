"""The experiment that a run folder describes."""

import sys
from pathlib import Path
from typing import Any

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.runs.folder import read_config
from gossamer.runs.serialization import from_data


def load_experiment(run: Path) -> Experiment:
    """The experiment of a run folder; nothing that the folder names is imported.

    Raises:
        InputError: The folder holds no run, one that this version cannot read, or one that needs a user's module that
            is not imported.
    """
    path = run / "config.json"
    data = read_config(run).get("experiment")
    try:
        _require_imported(data)
        experiment = from_data(data)
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path} was changed and cannot be read ({error}); restore it") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(experiment, Experiment):
        raise InputError(f"{path} describes no experiment; it must be the file that a run wrote")
    return experiment


def _require_imported(data: Any) -> None:
    """Refuse an identifier such as ``my_module:MyTask-v0``, whose module Gymnasium would import."""
    environment = data.get("environment") if isinstance(data, dict) else None
    if not isinstance(environment, dict):
        return
    for identifier in (environment.get("env_id"), environment.get("id")):  # the latter in earlier files
        module, colon, _ = str(identifier).partition(":")
        if not colon or module in sys.modules:
            continue
        raise InputError(
            f"the environment {identifier!r} needs the module {module!r}, and nothing that a run folder names is "
            f"imported by itself; if you trust it, add --import {module}, or import that module first"
        )
