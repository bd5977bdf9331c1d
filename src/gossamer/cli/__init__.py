"""The command line. It parses, calls the library and prints; every decision is made below it."""

from gossamer.cli.entry import COMMANDS, main, program

__all__ = ["COMMANDS", "main", "program"]
