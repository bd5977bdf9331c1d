"""The Ray that a driver is connected to, and whether it has room."""

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gossamer.errors import InputError
from gossamer.network.launcher import Launch
from gossamer.network.ray.place import Cluster, require_address


class Connection(NamedTuple):
    """A Ray to which this process is connected."""

    ray: Any
    host: str | None
    """Where agents listen; None: at the addresses of their nodes."""


def import_ray() -> Any:
    """The module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "agents on a cluster need ray; install it with: pip install 'gossamer[ray]'"
        ) from error
    return ray


@contextlib.contextmanager
def connected(place: Cluster) -> Iterator[Connection]:
    """Connect to a Ray, or start one, unless this process is connected; and leave it as it was."""
    ray = import_ray()
    if ray.is_initialized():
        address = ray.get_runtime_context().gcs_address
        if place.address not in (None, "auto", address):
            raise InputError(
                f"address is {place.address!r}; this process is connected to the Ray at {address} already"
            )
        yield Connection(ray, None)
        return
    address = place.address or os.environ.get("RAY_ADDRESS")
    with _sigterm_kept():
        if address is None:
            _start_own(ray)
        else:
            _join(ray, "RAY_ADDRESS" if place.address is None else "address", address)
        try:
            # No other machine joins a Ray that was started here, so its agents need not be heard elsewhere.
            yield Connection(ray, _LOOPBACK if address is None else None)
        finally:
            ray.shutdown()


def require_room(cluster: Connection, agents: int, how: Launch, place: Cluster) -> None:
    """Refuse a cluster without room for all agents, or whose nodes would talk in plaintext."""
    nodes = [node for node in cluster.ray.nodes() if node["Alive"]]
    room = sum(_room(node["Resources"], place) for node in nodes)
    if room < agents:
        raise InputError(
            f"the cluster has room for {room:g} agents with cpus_per_agent {place.cpus_per_agent:g} and gpus_per_agent "
            f"{place.gpus_per_agent:g}, and agents is {agents}; give fewer agents, less to each, or a larger cluster"
        )
    hosts = [cluster.host or node["NodeManagerAddress"] for node in nodes]
    open_hosts = sorted({host for host in hosts if not _is_loopback(host)})
    if open_hosts and not how.tls and not place.insecure:
        raise InputError(
            f"tls is off, and agents would listen at {', '.join(open_hosts[:3])}, which other machines can reach; give "
            "--tls, or --insecure"
        )


def _room(resources: Mapping[str, float], place: Cluster) -> float:
    wanted = {"CPU": place.cpus_per_agent, "GPU": place.gpus_per_agent}
    # A tenth fits ten times into one, whatever the rounding of binary fractions says.
    return min(
        (
            math.floor(resources.get(kind, 0.0) / amount + 1e-6)
            for kind, amount in wanted.items()
            if amount > 0
        ),
        default=math.inf,
    )


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")


def _start_own(ray: Any) -> None:
    # Unless it is told, Ray reports its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        # JAX warns of forks; these turn into other programs at once.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        _init(ray, address="local", include_dashboard=False, object_store_memory=_STORE_BYTES)


def _join(ray: Any, name: str, address: str) -> None:
    require_address(name, address)
    if address != "auto":
        # Ray itself would try for minutes.
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise InputError(
                f"{name} is {address!r}, where nothing answers ({error}); give that of a Ray that runs"
            ) from error
    try:
        _init(ray, address=address)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(
            f"{name} is {address!r}, and Ray says: {' '.join(str(error).split())}; give that of a Ray that runs with "
            "the same versions of Ray and Python"
        ) from error


def _init(ray: Any, **choices: Any) -> None:
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **choices)


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray puts a handler of its own in place of the one that there was."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


_LOOPBACK = "127.0.0.1"
_CONNECT_SECONDS = 5.0
_STORE_BYTES = 256 * 2**20  # only checkpoints pass through it, and they do not stay
