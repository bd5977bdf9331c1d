"""Zenoh's configuration for an agent: who may connect to it, and what each peer may send.

The defaults are closed: without certificates, nothing leaves this machine unless ``insecure`` is set; with them,
nothing is sent or received in plaintext.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gossamer.errors import InputError, require_at_least
from gossamer.network.credentials import OBSERVER, KeyFiles, require_name
from gossamer.network.topics import Topics


@dataclass(frozen=True)
class Credentials:
    """Paths of an agent's certificate and key, and of the authority's certificate.

    Example:
        >>> Credentials("keys/authority.pem", "keys/ada.pem", "keys/ada.key").key
        'keys/ada.key'
    """

    authority: str
    certificate: str
    key: str

    @classmethod
    def of(cls, files: KeyFiles) -> "Credentials":
        """Credentials from files that ``gossamer.network.credentials.check`` has accepted."""
        return cls(*(str(path.absolute()) for path in files))


@dataclass(frozen=True)
class Access:
    """The participants of a run, by the names in their certificates.

    Raises:
        InputError: If the run is not 32 hexadecimal digits in lower case, a name is invalid or repeated, an agent has
            an observer's name or the other way round, or ``name`` is not a participant.

    Example:
        >>> Access("0" * 32, "ada", agents=("ada", "bob"), observers=("bob",))
        Traceback (most recent call last):
        gossamer.errors.InputError: observers has 'bob'; their names must begin with 'observer-'
    """

    run: str
    name: str
    """The agent or observer that is configured."""
    agents: tuple[str, ...]
    """Agents that it communicates with, itself included if it is one."""
    observers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Topics(self.run)
        for name in self.agents:
            require_name("agents", name)
            if name.startswith(OBSERVER):
                raise InputError(f"agents has {name!r}; names that begin with {OBSERVER!r} are for observers")
        for name in self.observers:
            require_name("observers", name)
            if not name.startswith(OBSERVER):
                raise InputError(f"observers has {name!r}; their names must begin with {OBSERVER!r}")
        names = (*self.agents, *self.observers)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"{', '.join(repeated)} is named twice; names must be unique")
        if self.name not in names:
            raise InputError(f"name is {self.name!r}; it must be one of {', '.join(names)}")


def zenoh_config(
    listen: Sequence[str],
    connect: Sequence[str],
    credentials: Credentials | None,
    access: Access | None,
    insecure: bool = False,
    largest_message: int = 1 << 30,
) -> dict[str, Any]:
    """Build Zenoh's configuration: a value for each key that differs from Zenoh's default.

    With credentials, all links are mutual TLS 1.3 with certificates of one authority, and each end accepts from the
    other only what is the other's own: its messages, liveliness tokens and replies. Without them, peers are not
    authenticated.

    Args:
        listen: endpoints ``tls/HOST:PORT``, or ``tcp/HOST:PORT`` without credentials; port 0 is any free port.
        connect: endpoints to connect to; retried until it succeeds, and when a connection is lost.
        credentials: certificates, or None for plaintext.
        access: the participants; required with credentials, unused without.
        insecure: whether plaintext may leave this machine.
        largest_message: in bytes, >= 1. Zenoh applies it to messages that arrive in fragments (above 64 KiB); the
            receiver must check smaller limits itself.

    Raises:
        InputError: If an endpoint is invalid, plaintext would leave this machine without ``insecure``, credentials are
            given without ``access`` or with ``insecure``, or ``largest_message`` is below 1.

    Example:
        >>> config = zenoh_config(["tcp/127.0.0.1:0"], [], None, None)
        >>> config["listen/endpoints"], config["transport/link/protocols"]
        (['tcp/127.0.0.1:0'], ['tcp'])
        >>> zenoh_config(["tcp/0.0.0.0:7447"], [], None, None)
        Traceback (most recent call last):
        gossamer.errors.InputError: listen has 'tcp/0.0.0.0:7447', which other machines can reach, without ...
    """
    require_at_least("largest_message", largest_message, 1)
    protocol = "tcp" if credentials is None else "tls"
    for what, endpoints in (("listen", listen), ("connect", connect)):
        for endpoint in endpoints:
            _require_endpoint(what, endpoint, protocol, insecure)
    config = _common(listen, connect, protocol, largest_message)
    if credentials is None:
        return config
    if insecure:
        raise InputError("insecure is for agents without certificates; give one or the other")
    if access is None:
        raise InputError("access is missing; with certificates, give the names that are accepted")
    tls = {
        "root_ca_certificate": credentials.authority,
        "listen_certificate": credentials.certificate,
        "listen_private_key": credentials.key,
        "connect_certificate": credentials.certificate,
        "connect_private_key": credentials.key,
        "enable_mtls": True,
        "verify_name_on_connect": True,
        "close_link_on_expiration": True,
    }
    return config | {"transport/link/tls": tls, "access_control": access_control(access)}


def access_control(access: Access) -> dict[str, Any]:
    """Build Zenoh's access rules: each name may send only under its own topics, and the default is to deny.

    A peer is identified by the name in its certificate. When connecting, Zenoh also trusts all public authorities; they
    certify domain names, which contain a dot and therefore match no rule.

    Example:
        >>> rules = access_control(Access("0" * 32, "ada", ("ada", "bob")))
        >>> [policy["subjects"] for policy in rules["policies"]]
        [['ada'], ['bob']]
    """
    topics = Topics(access.run)
    # Restrict egress too: if a neighbour connects as a Zenoh client, its messages would be routed on from here, and
    # others would attribute them to this agent.
    own = _own_rules(access.name, "egress", topics) if access.name in access.agents else []
    ask = [_rule("agents ask", ["ingress", "egress"], _ASKING + _WATCHING, [f"gossamer/{access.run}/**"])]
    observe = [
        _rule("observers ask", ["ingress"], ["query"], [topics.status(), topics.newest()]),
        _rule("observers watch", ["ingress"], _WATCHING, [topics.alive("*")]),
    ]
    rules, policies = [*own, *ask, *observe], []
    # Including its own name: another process of the same agent may be running.
    for name in access.agents:
        theirs = _own_rules(name, "ingress", topics)
        rules += theirs
        policies.append(_policy(name, [*own, *ask, *theirs]))
    # Observers see tokens and get answers, but no published parameters.
    shown = [rule for rule in own if "put" not in rule["messages"]]
    policies += [_policy(name, [*shown, *observe]) for name in access.observers]
    subjects = [{"id": policy["subjects"][0], "cert_common_names": policy["subjects"]} for policy in policies]
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }


# Zenoh's names of message types. None of the rules contains "delete".
_ASKING = ["declare_subscriber", "query"]
_WATCHING = ["liveliness_query", "declare_liveliness_subscriber"]


def _own_rules(name: str, flow: str, topics: Topics) -> list[dict[str, Any]]:
    """Rules for what only this agent may send."""
    messages = topics.message(name, 0).rpartition("/")[0] + "/*"  # of all phases
    answers = [topics.status(name), topics.newest(name)]
    return [
        _rule(f"messages of {name}, {flow}", [flow], ["put"], [messages]),
        _rule(f"life of {name}, {flow}", [flow], ["liveliness_token"], [topics.alive(name)]),
        _rule(f"answers of {name}, {flow}", [flow], ["declare_queryable", "reply"], answers),
    ]


def _rule(name: str, flows: list[str], messages: list[str], keys: list[str]) -> dict[str, Any]:
    return {"id": name, "permission": "allow", "flows": flows, "messages": messages, "key_exprs": keys}


def _policy(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"subjects": [name], "rules": [rule["id"] for rule in rules]}


def _common(
    listen: Sequence[str], connect: Sequence[str], protocol: str, largest_message: int
) -> dict[str, Any]:
    return {
        "mode": "peer",
        # Set even if empty: by default Zenoh listens on all interfaces and searches the network for peers.
        "listen/endpoints": list(listen),
        "connect/endpoints": list(connect),
        "connect/timeout_ms": -1,
        "connect/exit_on_failure": False,
        "connect/retry": {"period_init_ms": 100, "period_max_ms": 1000, "period_increase_factor": 2},
        # An agent starts even if its neighbours are absent.
        "open/return_conditions/connect_scouted": False,
        "scouting/multicast/enabled": False,
        # The graph decides who connects to whom, not addresses that neighbours pass on.
        "scouting/gossip/autoconnect": [],
        "adminspace/enabled": False,
        "transport/link/protocols": [protocol],
        # One link per peer: Zenoh determines a peer's permissions once, from the certificate of its first link.
        "transport/unicast/max_links": 1,
        # Batches of 64 KiB in the send buffer, Zenoh's maximum; each is allocated when needed. With the default of 2,
        # two threads wake each other for every batch of a large message.
        "transport/link/tx/queue/size/data": 16,
        # A fragmented message contains its key and other fields beside the payload.
        "transport/link/rx/max_message_size": largest_message + _OVERHEAD,
        # With shared memory, a neighbour on this machine could change a message after its check, and a killed process
        # would leave segments behind.
        "transport/shared_memory/enabled": False,
    }


_OVERHEAD = 4096  # bytes


class _Endpoint(NamedTuple):
    protocol: str
    host: str
    port: int


def _require_endpoint(what: str, text: str, protocol: str, insecure: bool) -> None:
    endpoint = _parse(what, text)
    if endpoint.protocol != protocol and protocol == "tls":
        raise InputError(
            f"{what} has {text!r}, which is plaintext; with certificates, all endpoints must begin with tls/"
        )
    if endpoint.protocol != protocol:
        raise InputError(
            f"{what} has {text!r}, which requires certificates; give certificates, or an endpoint tcp/HOST:PORT"
        )
    if protocol == "tcp" and not insecure and not _is_loopback(endpoint.host):
        which = "which other machines can reach" if what == "listen" else "which is another machine"
        raise InputError(
            f"{what} has {text!r}, {which}, without certificates; give certificates, a loopback address such as "
            "127.0.0.1, or insecure"
        )
    if what == "connect" and not endpoint.port:
        raise InputError(f"connect has {text!r}; its port must be between 1 and 65535")
    if what == "connect" and protocol == "tls" and ":" in endpoint.host:
        raise InputError(
            f"connect has {text!r}, but Zenoh cannot verify a certificate for an IPv6 address; give a host name"
        )


def _parse(what: str, text: str) -> _Endpoint:
    head, _, options = text.partition("#")
    head, _, metadata = head.partition("?")
    match = _ENDPOINT.fullmatch(head)
    if not match:
        raise InputError(f"{what} has {text!r}; it must be tls/HOST:PORT or tcp/HOST:PORT")
    port = int(match["port"])
    if port > 65535:
        raise InputError(f"{what} has {text!r}; its port must be at most 65535")
    # Options in an endpoint override the configuration; one of them disables the verification of certificates.
    _require_options(what, text, metadata, ("prio", "rel"))
    _require_options(what, text, options, ("bind", "dscp", "iface", "so_rcvbuf", "so_sndbuf"))
    return _Endpoint(match["protocol"], match["literal"] or match["name"], port)


_ENDPOINT = re.compile(
    r"(?P<protocol>tcp|tls)/(\[(?P<literal>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)


def _require_options(what: str, text: str, options: str, known: Sequence[str]) -> None:
    names = [option.partition("=")[0] for option in options.split(";")] if options else []
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"{what} has {text!r} with the option {unknown[0]!r}; accepted options are {', '.join(known)}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # name servers decide what other names resolve to
