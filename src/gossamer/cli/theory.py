"""``gossamer theory``: the papers' theorems by numbers."""

from gossamer.catalogue import PROGRAM
from gossamer.cli.parse import call_of
from gossamer.errors import InputError, nearest


def theory_command(arguments: list[str]) -> None:
    """Check what the papers' theorems say by numbers: what holds, what does not, and a counterexample."""
    from rich.console import Console

    from gossamer.theory.tables import SUBJECTS

    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: {PROGRAM} theory SUBJECT [OPTIONS]   ({PROGRAM} theory SUBJECT --help lists them)\n\n"
            f"subjects: {', '.join(SUBJECTS)}"
        )
        return
    name, *rest = arguments
    if name not in SUBJECTS:
        raise InputError(f"{name!r} is no subject of theory; {nearest(name, list(SUBJECTS))}")
    console = Console(width=max(100, Console().width))
    for table in call_of(SUBJECTS[name], rest, f"theory {name}")():
        console.print(table)
