"""What stands on a command line becomes data, or one sentence that says what does not do; nothing is done here."""

import contextlib
import difflib
import functools
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from gossamer.errors import InputError

PROGRAM = "gossamer"


def parse(kind: Any, arguments: Sequence[str], command: str, advice: str = "", **options: Any) -> Any:
    """Parse with tyro, but refuse unknown flags in one sentence, which ends with the advice.

    ``kind`` is called before unknown flags are seen: it must make data and do nothing.
    """
    program = f"{PROGRAM} {command}"
    arguments = [word for each in arguments for word in _SPELLED_OUT.get(each, [each])]
    refuse_repeated(arguments)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = tyro.cli(
                kind,
                args=arguments,
                prog=program,
                config=config,
                return_unknown_args=True,
                **options,
            )
    except SystemExit as exit_:
        if exit_.code == 2:
            raise InputError(_sentence(complaint.getvalue())) from None
        raise
    if unknown:
        flags = _flags(kind, config, **options)
        near = difflib.get_close_matches(unknown[0], flags, n=2, cutoff=0.5)
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        what = "flag" if unknown[0].startswith("-") else "argument"
        advice = advice or f"{guess}{program} --help lists what is accepted"
        raise InputError(f"unknown {what} {unknown[0]}; {advice}")
    return parsed


def call_of(function: Callable[..., Any], arguments: Sequence[str], command: str) -> Callable[[], Any]:
    """The call that the arguments describe, not made yet: tyro would make it before it has seen all of them."""

    @functools.wraps(function)
    def described(*given: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(function, *given, **named)

    return parse(described, arguments, command)


def refuse_repeated(arguments: Sequence[str]) -> None:
    """Of a flag given twice the parser would keep the last without a word."""
    flags = [argument.partition("=")[0] for argument in arguments if re.match(r"--[a-z]", argument)]
    twice = [flag for flag in flags if flags.count(flag) > 1]
    if twice:
        raise InputError(
            f"{twice[0]} is given {flags.count(twice[0])} times; give it once, with all its values"
        )


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a refusal: what may have been meant, and what there is.

    Example:
        >>> nearest("trian", ["train", "list"])
        'did you mean train? known are train, list'
    """
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{guess}known are {', '.join(known)}"


def _sentence(box: str) -> str:
    """What tyro says in a box, as one line in our own manner: the text above the box's first rule."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    # Where the output is no terminal, rules are dashes, and one of them stands above the text too.
    begun = itertools.dropwhile(_is_rule, lines)
    text = " ".join(line for line in itertools.takewhile(lambda line: not _is_rule(line), begun) if line)
    for pattern, ours in _OURS:
        text = re.sub(pattern, ours, text)
    return text


def _is_rule(line: str) -> bool:
    return line.startswith(("─", "╰", "---"))


_SPELLED_OUT = {"--no-cache": ["--cache", "False"]}

_OURS = (
    # Which dataclass a bad field stands in is our affair.
    (r"^Error parsing (?!-)[\w.]+: ", ""),
    (
        r"^Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)$",
        r"\1 is \2; it must be an integer",
    ),
    (r"^Error parsing (\S+): could not convert string to float: (.*)$", r"\1 is \2; it must be a number"),
    (
        r"^Error parsing (\S+): Could not find valid parse for arguments: (.*)$",
        r"\1 is \2; --help says what it accepts",
    ),
    (r"^Missing value for argument '(\S+)'\..*$", r"\1 has no value; --help says what it accepts"),
    (
        r"^invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*)\)\.$",
        r"\2 is \1; it must be one of \3",
    ),
    (
        r"^Error parsing (\S+): no type matching (\S+) could be instantiated from \['(.*?)'\]\. .*$",
        r"\1 is '\3'; it must be one of \2",
    ),
    (r"^Missing from .*?: (\S+)(?: [A-Z{}|]+| \[.*\])? (.*?) \(required\)$", r"\1 is missing: \2"),
)


def _flags(kind: Any, config: Any, **options: Any) -> list[str]:
    """Every flag that the help text names; tyro offers no other list."""
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        tyro.cli(kind, args=["--help"], config=config, **options)
    return sorted(set(re.findall(r"--[a-z][a-z-]*", text.getvalue())))
