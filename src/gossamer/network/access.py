"""Who may connect to an agent, and what it may say then: Zenoh's configuration, from a few choices of ours.

Nothing here opens a connection. In doubt it refuses: without certificates nothing leaves this machine unless that is
asked for in as many words, and with certificates nothing is ever sent or heard in plaintext.
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
    """Paths of the files by which an agent knows others and they know it.

    Example:
        >>> Credentials("keys/authority.pem", "keys/ada.pem", "keys/ada.key").key
        'keys/ada.key'
    """

    authority: str
    certificate: str
    key: str

    @classmethod
    def of(cls, files: KeyFiles) -> "Credentials":
        """Those that ``gossamer.network.credentials.check`` has found in order."""
        return cls(*(str(path.absolute()) for path in files))


@dataclass(frozen=True)
class Access:
    """Who takes part in a run, by the names of their certificates.

    Raises:
        InputError: a run that is not 32 hexadecimal digits in lower case, a bad or repeated name, an agent named as an
            observer or the other way round, or a name of its own that is not among them.

    Example:
        >>> Access("0" * 32, "ada", agents=("ada", "bob"), observers=("bob",))
        Traceback (most recent call last):
        gossamer.errors.InputError: observers has 'bob'; their names begin with 'observer-'
    """

    run: str
    name: str
    """Whose configuration this is: an agent, or an observer."""
    agents: tuple[str, ...]
    """All agents of the run, itself too if it is one; with others it never talks."""
    observers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Topics(self.run)
        for name in self.agents:
            require_name("agents", name)
            if name.startswith(OBSERVER):
                raise InputError(f"agents has {name!r}; names that begin with {OBSERVER!r} are of observers")
        for name in self.observers:
            require_name("observers", name)
            if not name.startswith(OBSERVER):
                raise InputError(f"observers has {name!r}; their names begin with {OBSERVER!r}")
        everybody = (*self.agents, *self.observers)
        repeated = sorted({name for name in everybody if everybody.count(name) > 1})
        if repeated:
            raise InputError(
                f"{', '.join(repeated)} is named twice; each agent and observer has a name of its own"
            )
        if self.name not in everybody:
            raise InputError(f"name is {self.name!r}; it must be one of {', '.join(everybody)}")


def zenoh_config(
    listen: Sequence[str],
    connect: Sequence[str],
    credentials: Credentials | None,
    access: Access | None,
    insecure: bool = False,
    largest_message: int = 1 << 30,
) -> dict[str, Any]:
    """Zenoh's configuration: a value for each key that is set.

    With credentials all links are TLS 1.3, both ends show certificates of one authority, and each end accepts from the
    other what is the other's own: messages, liveliness, replies. Without them nothing of that can be known.

    Args:
        listen: endpoints ``tls/HOST:PORT``, or ``tcp/HOST:PORT`` without credentials; port 0 is any free one.
        connect: endpoints to keep connecting to until it succeeds, and again when a connection is lost.
        credentials: certificates, or None for plaintext.
        access: who takes part; needed with credentials, and not looked at without.
        insecure: whether plaintext may leave this machine.
        largest_message: in bytes, >= 1. Of a larger one nothing is kept if it comes in several fragments, that is if it
            has more than 64 KiB; whoever receives must check smaller limits.

    Raises:
        InputError: endpoints that do not fit, plaintext to other machines that was not asked for, credentials
            without access or together with ``insecure``, or a message size below 1.

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
        raise InputError("insecure is for agents without certificates; leave it out, or the certificates")
    if access is None:
        raise InputError("access is missing; with certificates it must be said whose are accepted")
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
    """Rules by which Zenoh drops what is not the sender's own to say; what no rule allows is dropped.

    Who has connected is known by the name in its certificate, not by anything that it says. Zenoh also trusts all
    public authorities where it connects; they sign names of domains, which have a dot and so are in no rule.

    Example:
        >>> rules = access_control(Access("0" * 32, "ada", ("ada", "bob")))
        >>> [policy["subjects"] for policy in rules["policies"]]
        [['ada'], ['bob']]
    """
    space = Topics(access.run)
    # Only what is its own goes out. Else it would pass on what a neighbour says that connects as a client, and others
    # would take that for its own words.
    said = _words(access.name, "egress", space) if access.name in access.agents else []
    ask = [_rule("agents ask", ["ingress", "egress"], _ASKING + _WATCHING, [f"gossamer/{access.run}/**"])]
    look = [
        _rule("observers ask", ["ingress"], ["query"], [space.status(), space.newest()]),
        _rule("observers watch", ["ingress"], _WATCHING, [space.alive("*")]),
    ]
    rules, policies = [*said, *ask, *look], []
    # Its own name too: another process may have begun to speak for the agent.
    for name in access.agents:
        heard = _words(name, "ingress", space)
        rules += heard
        policies.append(_policy(name, [*said, *ask, *heard]))
    # Messages are put, and observers get parameters only where they ask.
    shown = [rule for rule in said if "put" not in rule["messages"]]
    policies += [_policy(name, [*shown, *look]) for name in access.observers]
    subjects = [{"id": policy["subjects"][0], "cert_common_names": policy["subjects"]} for policy in policies]
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }


# In Zenoh's words. A delete is in none of them.
_ASKING = ["declare_subscriber", "query"]
_WATCHING = ["liveliness_query", "declare_liveliness_subscriber"]


def _words(name: str, flow: str, space: Topics) -> list[dict[str, Any]]:
    """What only one agent may say."""
    messages = space.message(name, 0).rpartition("/")[0] + "/*"  # of all phases
    answers = [space.status(name), space.newest(name)]
    return [
        _rule(f"messages of {name}, {flow}", [flow], ["put"], [messages]),
        _rule(f"life of {name}, {flow}", [flow], ["liveliness_token"], [space.alive(name)]),
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
        # Said even if empty: by default Zenoh listens to the whole network, and looks for others there.
        "listen/endpoints": list(listen),
        "connect/endpoints": list(connect),
        "connect/timeout_ms": -1,
        "connect/exit_on_failure": False,
        "connect/retry": {"period_init_ms": 100, "period_max_ms": 1000, "period_increase_factor": 2},
        # An agent begins although its neighbours are not there yet.
        "open/return_conditions/connect_scouted": False,
        "scouting/multicast/enabled": False,
        # Who talks to whom is the graph's business: nobody is connected to because a neighbour knows the address.
        "scouting/gossip/autoconnect": [],
        "adminspace/enabled": False,
        "transport/link/protocols": [protocol],
        # One link for each peer: what it may say is decided once, by the certificate of its first link.
        "transport/unicast/max_links": 1,
        # Batches of 64 KiB that may wait to be written, as many as Zenoh takes; each is allocated when it is needed.
        # Of only 2, as by default, a large message has two threads wake each other for every batch.
        "transport/link/tx/queue/size/data": 16,
        # A fragmented message has its key and the like around its payload.
        "transport/link/rx/max_message_size": largest_message + _AROUND,
        # A neighbour on the same machine could change a message after it was checked, and a killed process leaves its
        # segments behind.
        "transport/shared_memory/enabled": False,
    }


_AROUND = 4096


class _Endpoint(NamedTuple):
    protocol: str
    host: str
    port: int


def _require_endpoint(what: str, text: str, protocol: str, insecure: bool) -> None:
    endpoint = _parse(what, text)
    if endpoint.protocol != protocol and protocol == "tls":
        raise InputError(
            f"{what} has {text!r}, which is plaintext; with certificates all endpoints must begin with tls/"
        )
    if endpoint.protocol != protocol:
        raise InputError(
            f"{what} has {text!r}, for which certificates are needed; give them, or tcp/HOST:PORT"
        )
    if protocol == "tcp" and not insecure and not _is_loopback(endpoint.host):
        which = "which other machines can reach" if what == "listen" else "which is another machine"
        raise InputError(
            f"{what} has {text!r}, {which}, without certificates; give certificates, or a loopback address "
            "such as 127.0.0.1, or say that it may be insecure"
        )
    if what == "connect" and not endpoint.port:
        raise InputError(f"connect has {text!r}; its port must be between 1 and 65535")
    if what == "connect" and protocol == "tls" and ":" in endpoint.host:
        raise InputError(
            f"connect has {text!r}, but Zenoh verifies no certificate by an IPv6 address; give a host name instead"
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
    # Zenoh takes options over the configuration: one of them switches the check of certificates off.
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
        raise InputError(f"{what} has {text!r} with {unknown[0]!r}; there it accepts {', '.join(known)} only")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # What any other name stands for is decided by whoever answers for names.
        return host == "localhost"
