"""Greedy episodes, evaluations, policies and videos of trained agents, read from run folders."""
