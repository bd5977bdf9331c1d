"""Agents of a population on a cluster: Ray gives each a place and its resources, and a new one when it dies.

Ray carries no gossip: agents talk to each other over the network, as those of ``fleet.launch`` do. What they write on
their nodes is copied to the driver's disk while they live. This is the one package that imports ray.
"""

from gossamer.network.ray.launch import launch_on_ray, resume_on_ray
from gossamer.network.ray.place import Cluster

__all__ = ["Cluster", "launch_on_ray", "resume_on_ray"]
