"""``python -m gossamer`` is the command line."""

from gossamer.cli import program

program()
