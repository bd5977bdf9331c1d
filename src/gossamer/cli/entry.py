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
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from gossamer.cli.analysis import evaluate_command, plot_command, topology_command, video_command
from gossamer.cli.catalogue import list_names
from gossamer.cli.fleet import agent_command, gather_command, launch_command, status_command
from gossamer.cli.keys import keys_command
from gossamer.cli.parse import PROGRAM, nearest
from gossamer.cli.reproduce import report_command, reproduce_command
from gossamer.cli.theory import theory_command
from gossamer.cli.train import demo_command, train_command
from gossamer.errors import InputError

_INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT)


def program() -> None:
    """The command line as a process of its own."""
    # Imports and tracing make millions of objects that live on: looking among them for garbage takes a tenth of both.
    gc.set_threshold(100_000, 50, 100)
    _say_our_warnings_plainly()
    try:
        main()
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
        from gossamer.stopping import Interrupted, Unfinished

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
        print(f"{PROGRAM} {version('gossamer')}")
        return
    # A run may name classes of the user's own, whose modules lie where the command is given.
    with contextlib.suppress(FileNotFoundError):  # a directory that was removed meanwhile
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    name, *rest = arguments
    if name not in COMMANDS:
        raise InputError(f"{name!r} is no command; {nearest(name, list(COMMANDS))}")
    COMMANDS[name](rest)


def _overview() -> str:
    lines = [
        "gossamer: fully decentralised deep reinforcement learning",
        "",
        f"usage: {PROGRAM} COMMAND [ARGUMENTS]   ({PROGRAM} COMMAND --help says more)",
        "",
    ]
    lines += [f"  {name:<10} {command.__doc__ or ''}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", f"  {'--version':<10} Print the version."])


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


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": list_names,
    "train": train_command,
    "launch": launch_command,
    "agent": agent_command,
    "status": status_command,
    "gather": gather_command,
    "keys": keys_command,
    "evaluate": evaluate_command,
    "video": video_command,
    "plot": plot_command,
    "topology": topology_command,
    "reproduce": reproduce_command,
    "report": report_command,
    "theory": theory_command,
    "demo": demo_command,
}
