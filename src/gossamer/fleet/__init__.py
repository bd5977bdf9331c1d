"""Populations whose agents are processes: one agent, all of them on one machine, and what they say of themselves."""
