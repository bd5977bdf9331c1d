"""The program: which command is meant, and with what status and last word it ends.

Bad input leaves one sentence on standard error and exit status 2, an interrupted run status 130, a run that
diverged or could not be written any more status 1. A defect leaves its traceback.
"""

import contextlib
import errno
import gc
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import gossamer
from gossamer.catalogue import PROGRAM
from gossamer.errors import InputError, nearest

_INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT)


def program() -> None:
    """The command line as a process of its own."""
    # Imports and tracing make millions of objects that live on: looking among them for garbage takes a tenth of both.
    gc.set_threshold(100_000, 50, 100)
    _say_our_warnings_plainly()
    try:
        main()
    except KeyboardInterrupt:  # a second Ctrl-C, while the first one was reported
        os._exit(_INTERRUPTED)
    except SystemExit as ending:
        if ending.code != _INTERRUPTED:
            raise
        # What XLA still compiles or computes would crash while the interpreter takes itself apart.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(_INTERRUPTED)
    finally:
        gc.freeze()  # the interpreter would look through all of them once more before it ends


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with its status."""
    try:
        _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        _exit(2, str(error))
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        # Of all that the system may refuse, only this is never a defect, wherever it comes up.
        if error.errno not in _FULL:
            raise
        _exit(
            1, f"{error.filename or 'a file'} cannot be written ({error.strerror}); make room and try again"
        )
    except KeyboardInterrupt:
        _exit(_INTERRUPTED, "interrupted")
    except Exception as error:
        # The ends of a run that are no defects; anything else keeps its traceback.
        from gossamer.system.signals import Interrupted, Unfinished

        if isinstance(error, Interrupted):
            _exit(_INTERRUPTED, str(error))
        if isinstance(error, Unfinished):
            _exit(1, str(error))
        raise


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        print(f"{PROGRAM} {gossamer.__version__}")
        return
    # Modules that the user names, with --import or in an identifier of Gymnasium's, lie where the command is given.
    with contextlib.suppress(FileNotFoundError):  # a directory that was removed meanwhile
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    name, *rest = _imported(arguments)
    if name not in COMMANDS:
        raise InputError(f"{name!r} is not a command; {nearest(name, list(COMMANDS))}")
    module, _, function = COMMANDS[name][0].partition(":")
    getattr(import_module(module), function)(rest)


def _imported(arguments: Sequence[str]) -> list[str]:
    """Import the modules that follow ``--import``, and return the other arguments."""
    others, modules = [], iter([part for each in arguments for part in _split_import(each)])
    for argument in modules:
        if argument != "--import":
            others.append(argument)
            continue
        module = next(modules, "")
        try:
            import_module(module)
        except (ImportError, ValueError, TypeError) as error:
            raise InputError(
                f"--import {module} does not work ({error}); give a module of this directory or of PYTHONPATH"
            ) from error
    return others


def _split_import(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--import=") else [argument]


def _overview() -> str:
    lines = [
        "gossamer: fully decentralised deep reinforcement learning",
        "",
        f"usage: {PROGRAM} COMMAND [ARGUMENTS]   ({PROGRAM} COMMAND --help says more)",
        "",
    ]
    lines += [f"  {name:<10} {line}" for name, (_, line) in COMMANDS.items()]
    lines += ["", f"  {'--version':<10} Print the version."]
    lines += [f"  {'--import M':<10} Import module M first: a run that uses your own classes needs them."]
    return "\n".join(lines)


def _say_our_warnings_plainly() -> None:
    """Without the line of code that warns; other people's warnings stay as they are."""
    usual = warnings.formatwarning

    def shown(message: Any, category: type[Warning], *where: Any, **more: Any) -> str:
        ours = category.__module__.partition(".")[0] == PROGRAM
        return f"{PROGRAM}: {message}\n" if ours else usual(message, category, *where, **more)

    warnings.formatwarning = shown


def _exit(status: int, message: str) -> None:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    sys.exit(status)


COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": (
        "gossamer.cli.catalogue:list_names",
        "List recipes, figures and tables, topologies, weight rules",
    ),
    "train": ("gossamer.cli.train:train_command", "Train a recipe, or continue a run with --resume RUN"),
    "launch": ("gossamer.cli.fleet:launch_command", "Train a recipe with one process per agent"),
    "agent": ("gossamer.cli.fleet:agent_command", "Run one agent of a fleet on this device"),
    "status": ("gossamer.cli.fleet:status_command", "Show which agents of a launch or a fleet are alive"),
    "gather": ("gossamer.cli.fleet:gather_command", "Merge the folders of a fleet's agents into one run"),
    "keys": ("gossamer.cli.keys:keys_command", "Make a fleet's certificate authority and certificates"),
    "evaluate": (
        "gossamer.cli.analysis:evaluate_command",
        "Play episodes with every agent of a run on every task",
    ),
    "video": ("gossamer.cli.analysis:video_command", "Film an episode of a trained agent"),
    "plot": ("gossamer.cli.analysis:plot_command", "Draw the learning curves of one or several runs"),
    "topology": ("gossamer.cli.analysis:topology_command", "Print a topology's properties and draw it"),
    "reproduce": ("gossamer_papers.cli:reproduce_command", "Reproduce a published figure or table, or --all"),
    "report": (
        "gossamer_papers.cli:report_command",
        "Write a report of all results beside the papers' claims",
    ),
    "theory": ("gossamer_papers.cli:theory_command", "Check the papers' theorems numerically"),
    "demo": ("gossamer.cli.train:demo_command", "Train 25 agents by diffusion, and one central learner"),
    "doctor": ("gossamer.cli.doctor:doctor_command", "Check this installation and this machine"),
}
"""Every command: the function that runs it, imported only then, and one line about it."""
