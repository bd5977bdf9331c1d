"""Measurements of speed: scripts that print a table and write it to ``benchmarks/results``."""
