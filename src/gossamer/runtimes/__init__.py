"""Who runs the agents, and when they talk."""

from gossamer.runtimes.vectorised import Population, RoundRecord, initialise, run_chunk

__all__ = ["Population", "RoundRecord", "initialise", "run_chunk"]
