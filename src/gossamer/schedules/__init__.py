"""Seeded asynchrony: who is active, which links are up, how old each message is."""

from gossamer.schedules.combine_rules import is_stale, is_usable, may_combine, return_missing_to_self
from gossamer.schedules.cycle import Cycle
from gossamer.schedules.draws import compute_duration, latency_of, link_fails, uniform
from gossamer.schedules.durations import DURATIONS, Duration, parse_duration
from gossamer.schedules.links import Links
from gossamer.schedules.schedule import Failures, Rule, Schedule
from gossamer.schedules.simulation import Simulation, Wave

__all__ = [
    "DURATIONS",
    "Cycle",
    "Duration",
    "Failures",
    "Links",
    "Rule",
    "Schedule",
    "Simulation",
    "Wave",
    "compute_duration",
    "is_stale",
    "is_usable",
    "latency_of",
    "link_fails",
    "may_combine",
    "parse_duration",
    "return_missing_to_self",
    "uniform",
]
