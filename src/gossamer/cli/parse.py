"""Turn the words of a command line into data, or into one sentence about what is wrong; nothing is done here."""

import contextlib
import difflib
import functools
import io
import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from gossamer.catalogue import PROGRAM
from gossamer.errors import InputError

HELP = ("-h", "--help", "--help-all")
_CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands)

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "--lr": ("--learning-rate", "--actor-learning-rate", "--critic-learning-rate"),
    "--learning-rate": ("--actor-learning-rate", "--critic-learning-rate"),
    "--gamma": ("--discount",),
    "--lam": ("--trace-decay",),
    "--gae-lambda": ("--trace-decay",),
    "--ent-coef": ("--entropy-coefficient",),
    "--vf-coef": ("--value-coefficient",),
    "--max-grad-norm": ("--max-gradient-norm",),
    "--optimizer": ("--optimiser",),
    "--n-steps": ("--steps",),
    "--n-agents": ("--agents",),
    "--num-agents": ("--agents",),
    "--env": ("--env-id",),
    "--graph": ("--topology",),
    "--output": ("--out",),
}
"""Names that other libraries use for our flags. They are accepted where exactly one of ours exists."""

_HINTS: Mapping[str, tuple[str, ...]] = {
    "--steps": ("--rounds",),
    "--total-timesteps": ("--rounds",),
    "--epochs": ("--rounds",),
    "--iterations": ("--rounds",),
    "--episodes": ("--rounds", "--episodes-per-environment"),
    "--num-envs": ("--tasks", "--copies"),
    "--n-envs": ("--tasks", "--copies"),
}
"""Names that other libraries use for something similar to our flags, in other units. They are only suggested."""

_TRUTH = ("true", "false")
_DECIDED_BY_THE_RECIPE = ("--env", "--env-id", "--environment", "--algo", "--algorithm")


def parse(
    kind: Any,
    arguments: Sequence[str],
    command: str,
    advice: str = "",
    first: Sequence[str] = (),
    **options: Any,
) -> Any:
    """Parse arguments with tyro; report unknown flags in one sentence that ends with ``advice``.

    ``kind`` is called before unknown flags are seen: it must make data and do nothing else. Where ``first`` is given,
    ``--help`` shows those flags only and ``--help-all`` all of them; elsewhere both show all.
    """
    program = f"{PROGRAM} {command}"
    cli = functools.partial(tyro.cli, kind, prog=program, config=_CONFIG, **options)
    if set(arguments) & {*HELP}:
        if not first or "--help-all" in arguments:
            cli(args=["--help"])  # exits
        print(_short_help(_help_text(cli), first, program))
        raise SystemExit(0)
    arguments = _in_our_words(arguments, cli)
    refuse_repeated(arguments)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = cli(args=arguments, return_unknown_args=True)
    except SystemExit as exit_:
        if exit_.code == 2:
            raise InputError(_sentence(complaint.getvalue())) from None
        raise
    if unknown:
        raise InputError(
            _about_unknown(unknown[0], arguments, _flags(_help_text(cli)), program, advice, first)
        )
    return parsed


def call_of(function: Callable[..., Any], arguments: Sequence[str], command: str) -> Callable[[], Any]:
    """The call that the arguments describe, not made yet: tyro would make it before it has seen all of them."""

    @functools.wraps(function)
    def described(*given: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(function, *given, **named)

    return parse(described, arguments, command)


def refuse_repeated(arguments: Sequence[str]) -> None:
    """Refuse a flag that is given twice, of which the parser would silently keep the last."""
    flags = [argument.partition("=")[0] for argument in arguments if re.match(r"--[a-z]", argument)]
    flags = [re.sub("^--no-", "--", flag) for flag in flags]
    twice = [flag for flag in flags if flags.count(flag) > 1]
    if twice:
        raise InputError(
            f"{twice[0]} is given {flags.count(twice[0])} times; give it once, with all its values"
        )


def _in_our_words(arguments: Sequence[str], cli: Callable[..., Any]) -> list[str]:
    """The arguments with aliases replaced by our flags, and ``--tls True`` and ``--tls False`` by the flag alone."""
    told = [part for each in arguments for part in _split(each)]
    if not any(each in _ALIASES or each.lower() in _TRUTH for each in told):
        return list(arguments)
    flags, ours = _flags(_help_text(cli)), []
    for each in told:
        meant = _meant(each, flags)
        if each.lower() in _TRUTH and ours and _negated(ours[-1]) in flags:
            ours[-1] = ours[-1] if each.lower() == "true" else _negated(ours[-1])
        else:
            ours.append(meant[0] if len(meant) == 1 and each not in flags else each)
    return ours


def _split(argument: str) -> list[str]:
    """``--lr=0.1`` and ``--tls=True`` as two words; anything else is left to the parser."""
    flag, equals, value = argument.partition("=")
    return [flag, value] if equals and (flag in _ALIASES or value.lower() in _TRUTH) else [argument]


def _negated(flag: str) -> str:
    return re.sub("^--", "--no-", flag.replace("_", "-"))


def _meant(flag: str, flags: Sequence[str]) -> list[str]:
    """Those of our flags that an alias may stand for, of those that the command has."""
    return [each for each in _ALIASES.get(flag, ()) if each in flags]


def _about_unknown(
    unknown: str,
    arguments: Sequence[str],
    flags: Sequence[str],
    program: str,
    advice: str,
    first: Sequence[str],
) -> str:
    """The sentence about the first argument that no flag takes."""
    place = arguments.index(unknown) if unknown in arguments else 0
    if place and _negated(arguments[place - 1]) in flags:
        flag = arguments[place - 1]
        return f"{flag} is {unknown!r}; give {flag} or {_negated(flag)}, without a value"
    name = unknown.partition("=")[0]
    if advice:
        pass
    elif first and name in _DECIDED_BY_THE_RECIPE:
        advice = f"the recipe decides this: {PROGRAM} list names the recipes"
    else:
        ours = (*_ALIASES.get(name, ()), *_HINTS.get(name, ()))
        near = [each for each in ours if each in flags]
        if ours and not near:
            guess = f"it would be {' or '.join(ours)} here, which this command does not have; "
        else:
            near = near or difflib.get_close_matches(name, flags, n=2, cutoff=0.5)
            guess = f"did you mean {' or '.join(near)}? " if near else ""
        advice = f"{guess}{program} {'--help-all' if first else '--help'} lists what is accepted"
    return f"unknown {'flag' if unknown.startswith('-') else 'argument'} {unknown}; {advice}"


def _help_text(cli: Callable[..., Any]) -> str:
    """Tyro's help as plain text."""
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        cli(args=["--help"])
    return text.getvalue()


def _flags(help_text: str) -> list[str]:
    """Every flag that the help names; tyro offers no other list."""
    return sorted(set(re.findall(r"--[a-z][a-z-]*", help_text)))


def _short_help(help_text: str, first: Sequence[str], program: str) -> str:
    """The beginning of tyro's help, and its entries of some flags in the order given."""
    entries = {
        entry[1]: entry[0] for entry in re.finditer(r"^  (--[a-z-]+).*\n(?: {5,}\S.*\n)*", help_text, re.M)
    }
    shown = [entries[flag] for flag in first if flag in entries]
    flags = _flags(help_text)
    aliases = {alias: _meant(alias, flags) for alias in _ALIASES if alias not in flags}
    understood = ", ".join(f"{alias} for {meant[0]}" for alias, meant in aliases.items() if len(meant) == 1)
    below = f"{program} --help-all lists {len(entries) - len(shown)} more flags. Aliases: {understood}."
    above = "\n".join(
        textwrap.fill(line, 80, break_on_hyphens=False)
        for line in re.sub("\n{3,}", "\n\n", help_text.partition("\n options")[0]).split("\n")
    )
    text = re.sub(" +$", "", "".join(shown), flags=re.M)
    return f"{above}\n{text}\n{textwrap.fill(below, 80, break_on_hyphens=False)}"


def _sentence(box: str) -> str:
    """The text of tyro's error box above its first rule, as one line in the wording of our other messages."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    # Where the output is no terminal, rules are dashes, and one of them stands above the text too.
    begun = itertools.dropwhile(_is_rule, lines)
    text = " ".join(line for line in itertools.takewhile(lambda line: not _is_rule(line), begun) if line)
    for pattern, ours in _OURS:
        text = re.sub(pattern, ours, text)
    return text


def _is_rule(line: str) -> bool:
    return line.startswith(("─", "╰", "---"))


_OURS = (
    # The name of the dataclass that holds a bad field says nothing to a user.
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
