"""What gossip over Zenoh costs, measured on one machine."""
