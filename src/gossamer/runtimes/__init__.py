"""Who runs the agents, and when they talk."""
