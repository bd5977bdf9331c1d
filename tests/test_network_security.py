"""Who is refused, by Zenoh itself and by our checks of what it is given. All on loopback."""

import json
import logging
import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="certificates need the extra gossamer[network]")
zenoh = pytest.importorskip("zenoh", reason="the network needs the extra gossamer[network]")

from gossamer.errors import InputError  # noqa: E402
from gossamer.network import credentials  # noqa: E402
from gossamer.network.access import Access, Credentials, access_control, zenoh_config  # noqa: E402
from gossamer.network.refusals import Refusals, printable  # noqa: E402
from gossamer.network.topics import Topics  # noqa: E402
from gossamer.network.zenoh_log import UNKNOWN, LogReader  # noqa: E402
from one_agent import open_session  # noqa: E402

RUN = "0123456789abcdef" * 2
SPACE = Topics(RUN)
AGENTS = ("alice", "bob", "carol", "dave", "eve")
OBSERVERS = ("observer-olga",)
LARGEST = 200_000
DEADLINE = 60.0  # seconds; reached only where something is broken
DAY = 86400.0


# --- What Zenoh is configured to do -------------------------------------------------------------------------------


CREDENTIALS = Credentials("authority.pem", "alice.pem", "alice.key")
ACCESS = Access(RUN, "alice", AGENTS, OBSERVERS)


def secure(listen=(), connect=(), **more):
    return zenoh_config(listen, connect, CREDENTIALS, ACCESS, **more)


@pytest.mark.parametrize(
    "endpoint",
    ["tcp/127.0.0.1:0", "tcp/127.8.9.10:7447", "tcp/localhost:1", "tcp/[::1]:0", "tcp/127.0.0.1:1?rel=1"],
)
def test_loopback_needs_no_certificates(endpoint):
    assert zenoh_config([endpoint], [], None, None)["listen/endpoints"] == [endpoint]


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp/[::]:0",
        "tcp/0.0.0.0:7447",
        "tcp/192.168.0.1:7447",
        "tcp/[fe80::1]:7447",
        "tcp/[::ffff:127.0.0.1]:7447",
        "tcp/robot.example.org:7447",
        "tcp/localhost.example.org:7447",
        "tcp/127.0.0.1.example.org:7447",
        "tcp/127.1:7447",  # an address to some, a name to others
        "tcp/LOCALHOST:7447",
    ],
)
def test_other_machines_need_certificates_or_a_word(endpoint):
    message = "without certificates; give certificates, or a loopback address such as 127.0.0.1, or say that"
    for listen, connect in (([endpoint], []), ([], [endpoint])):
        with pytest.raises(InputError, match=message):
            zenoh_config(listen, connect, None, None)
    insecure = zenoh_config([endpoint], [], None, None, insecure=True)
    assert insecure["listen/endpoints"] == [endpoint]
    assert insecure["transport/link/protocols"] == ["tcp"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "tls",
        "127.0.0.1:7447",
        "tls/127.0.0.1",
        "tls/:7447",
        "tls/::1:7447",
        "tls/*:7447",
        "udp/127.0.0.1:7447",
        "quic/127.0.0.1:7447",
        "ws/127.0.0.1:7447",
        "serial//dev/ttyUSB0",
        "unixsock-stream//tmp/socket",
        "TLS/127.0.0.1:7447",
        " tls/127.0.0.1:7447",
        "tls/127.0.0.1:7447\n",
        "tls/127.0.0.1:-1",
    ],
)
def test_only_tcp_and_tls_are_spoken(endpoint):
    for listen, connect in (([endpoint], []), ([], [endpoint])):
        with pytest.raises(InputError, match="it must be tls/HOST:PORT or tcp/HOST:PORT"):
            secure(listen, connect)
        with pytest.raises(InputError, match="it must be tls/HOST:PORT or tcp/HOST:PORT"):
            zenoh_config(listen, connect, None, None, insecure=True)


def test_certificates_leave_no_way_back_to_plaintext():
    for listen, connect in ((["tcp/127.0.0.1:0"], []), ([], ["tcp/127.0.0.1:1"])):
        with pytest.raises(
            InputError, match="which is plaintext; with certificates all endpoints must begin with tls/"
        ):
            secure(listen, connect)
    with pytest.raises(InputError, match="insecure is for agents without certificates"):
        secure(["tls/127.0.0.1:0"], insecure=True)
    with pytest.raises(InputError, match="access is missing"):
        zenoh_config([], [], CREDENTIALS, None)
    with pytest.raises(InputError, match="for which certificates are needed"):
        zenoh_config(["tls/127.0.0.1:0"], [], None, None, insecure=True)
    assert secure(["tls/0.0.0.0:7447"], ["tls/robot:7447"])["transport/link/protocols"] == ["tls"]


@pytest.mark.parametrize(
    "option",
    [
        "#verify_name_on_connect=false",
        "#iface=lo;enable_mtls=false",
        "#root_ca_certificate_file=mine.pem",
        "?x=1",
    ],
)
def test_an_endpoint_cannot_change_what_is_checked(option):
    for listen, connect in (([f"tls/127.0.0.1:1{option}"], []), ([], [f"tls/127.0.0.1:1{option}"])):
        with pytest.raises(InputError, match="there it accepts"):
            secure(listen, connect)
    assert secure(["tls/127.0.0.1:0?prio=6-7;rel=1#iface=lo;so_sndbuf=65000"])


def test_ports_and_addresses_that_zenoh_cannot_use():
    with pytest.raises(InputError, match="its port must be at most 65535"):
        secure(["tls/127.0.0.1:65536"])
    with pytest.raises(InputError, match="its port must be between 1 and 65535"):
        secure([], ["tls/127.0.0.1:0"])
    with pytest.raises(InputError, match="verifies no certificate by an IPv6 address; give a host name"):
        secure([], ["tls/[::1]:7447"])
    with pytest.raises(InputError, match="largest_message is 0; it must be at least 1"):
        secure(largest_message=0)


def test_what_is_always_off():
    for config in (secure(), zenoh_config([], [], None, None)):
        assert config["listen/endpoints"] == [] == config["scouting/gossip/autoconnect"]
        off = ("scouting/multicast/enabled", "transport/shared_memory/enabled", "adminspace/enabled")
        assert not any(config[key] for key in (*off, "connect/exit_on_failure"))
    tls = secure()["transport/link/tls"]
    assert all(
        tls[key] is True for key in ("enable_mtls", "verify_name_on_connect", "close_link_on_expiration")
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run": "x"}, "run is 'x'"),
        ({"agents": ("alice", "Bob")}, "agents is 'Bob'"),
        ({"agents": ("alice", "observer-2")}, "agents has 'observer-2'"),
        ({"observers": ("olga",)}, "observers has 'olga'"),
        ({"agents": ("alice", "bob", "bob")}, "bob is named twice"),
        ({"agents": ("bob",)}, "name is 'alice'"),
    ],
)
def test_who_takes_part_is_checked(changed, message):
    fields = {"run": RUN, "name": "alice", "agents": ("alice",)} | changed
    with pytest.raises(InputError, match=message):
        Access(**fields)


def allowed(rules, name, flow, message):
    """Keys that one name may use."""
    by_id = {rule["id"]: rule for rule in rules["rules"]}
    assert len(by_id) == len(rules["rules"])
    ids = [each for policy in rules["policies"] if policy["subjects"] == [name] for each in policy["rules"]]
    chosen = [
        by_id[each] for each in ids if flow in by_id[each]["flows"] and message in by_id[each]["messages"]
    ]
    return [key for rule in chosen for key in rule["key_exprs"]]


def test_everybody_speaks_for_itself_only():
    rules = access_control(ACCESS)
    assert (rules["enabled"], rules["default_permission"]) == (True, "deny")
    for name in AGENTS:
        answers = [SPACE.status(name), SPACE.newest(name)]
        assert allowed(rules, name, "ingress", "put") == [f"gossamer/{RUN}/message/{name}/*"]
        assert allowed(rules, name, "ingress", "liveliness_token") == [f"gossamer/{RUN}/alive/{name}/*"]
        assert allowed(rules, name, "ingress", "reply") == answers
        assert allowed(rules, name, "ingress", "declare_queryable") == answers
        assert allowed(rules, name, "egress", "put") == [f"gossamer/{RUN}/message/alice/*"]
    for name in (*AGENTS, *OBSERVERS):
        assert not any(allowed(rules, name, flow, "delete") for flow in ("ingress", "egress"))
    for message in ("put", "reply", "liveliness_token", "declare_queryable", "declare_subscriber"):
        assert not allowed(rules, "observer-olga", "ingress", message)
    assert not allowed(rules, "observer-olga", "egress", "put")
    assert {policy["subjects"][0] for policy in rules["policies"]} == {*AGENTS, *OBSERVERS}


# --- Counting -----------------------------------------------------------------------------------------------------


def test_the_log_tells_of_powers_of_two(caplog):
    refusals = Refusals("alice")
    for _ in range(9):
        refusals.refuse("checksum", "bob", "damaged on its way")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "alice refused bob (checksum, 1 times so far): damaged on its way"
    assert [line.split()[4] for line in lines] == ["1", "2", "4", "8"]
    assert refusals.counts() == {"checksum": {"bob": 9}}


def test_all_threads_are_counted():
    refusals = Refusals()
    threads = [
        threading.Thread(target=lambda: [refusals.refuse("checksum", "bob") for _ in range(1000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refusals.counts() == {"checksum": {"bob": 4000}}


def test_changing_names_fills_no_memory():
    refusals = Refusals()
    for number in range(1500):
        refusals.refuse("checksum", f"agent-{number}")
    counts = refusals.counts()["checksum"]
    assert len(counts) == 1001
    assert counts["others"] == 500


def test_the_log_is_not_written_by_others(caplog):
    Refusals("alice").refuse("checksum", "bob\n", "\x1b[31mred\nalice refused carol" + "x" * 1000)
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert line.startswith(
        "alice refused bob\\n (checksum, 1 times so far): \\x1b[31mred\\nalice refused carolxxx"
    )
    assert len(line) < 600
    assert printable("é ± ü") == "é ± ü"


# --- Zenoh's log, as version 1.10.2 writes it ---------------------------------------------------------------------


ZID = "24628d0fb93a5e2c91a3c34b5cf0a111"
SUBJECT = f"{ZID} on Interface(lo)+CertCommonName(bob)+Transport(Tls)+{ZID}"
HINT = "Hint: increase the system open file limit."


def line(
    text, target="zenoh::net::routing::interceptor::access_control", level="TRACE", thread="rx-0 ThreadId(11)"
):
    return f"2026-11-22T02:29:47.780303Z {level:>5} {thread} {target}: {text}"


def tls(text, level="WARN"):
    return line(text, "zenoh_link_tls::unicast", level, "acc-0 ThreadId(05)")


def counted(*lines):
    refusals = Refusals()
    reader = LogReader(refusals)
    assert all(reader.read(each) for each in lines)
    return refusals.counts()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("received corrupt message of type InvalidContentType", "not_tls"),
        ("peer is incompatible: SupportedVersionsExtensionRequired", "not_tls"),
        ("peer sent no certificates", "no_certificate"),
        ("invalid peer certificate: BadSignature", "foreign_certificate"),
        ("invalid peer certificate: UnknownIssuer", "foreign_certificate"),
        (
            "invalid peer certificate: certificate expired: verification time 1795313585 (UNIX), but certificate is "
            "not valid after 1786932740 (8380845 seconds ago)",
            "expired_certificate",
        ),
        ("received fatal alert: DecryptError", "declined"),
        ("tls handshake eof", "broken_off"),
    ],
)
def test_handshakes_that_fail(text, reason, caplog):
    assert counted(tls(f"{text}. {HINT}")) == {reason: {UNKNOWN: 1}}
    assert f"this agent refused an unknown address ({reason}, 1 times so far): {text}" in caplog.text


def test_connecting_to_an_impostor():
    where = "zenoh/io/zenoh-links/zenoh-link-tls/src/unicast.rs:378"
    unable = (
        "Unable to connect to configured peer tls/127.0.0.1:17555! Can not create a new TLS link bound to "
        "IpAddress(V4(Ipv4Addr([127, 0, 0, 1]))): {} at " + where + ".. Retry in 100ms."
    )
    target, thread = "zenoh::net::runtime::orchestrator", "net-0 ThreadId(03)"

    def said(why):
        return line(unable.format(why), target, "DEBUG", thread)

    at = "127.0.0.1:17555"
    assert counted(said("invalid peer certificate: BadSignature")) == {"foreign_certificate": {at: 1}}
    assert counted(said("received fatal alert: CertificateExpired")) == {"declined": {at: 1}}
    expired = "invalid peer certificate: certificate expired: verification time 1795313852 (UNIX), but ..."
    assert counted(said(expired)) == {"expired_certificate": {at: 1}}
    # One that is not there, or has just ended, is no impostor.
    assert counted(said("Connection refused (os error 111)"), said("tls handshake eof")) == {}


def test_names_that_are_not_the_senders():
    put = f"is unauthorized to Put (ingress) on gossamer/{RUN}/message/alice/0"
    assert counted(line(f"{SUBJECT} {put}")) == {"not_its_own": {"bob": 1}}
    # What was decided before is told without the name.
    assert counted(
        line(f"{SUBJECT} is authorized to Put (ingress) on gossamer/{RUN}/message/bob/0"),
        line(f"Using cached result: {ZID} {put}"),
        line(f"Using cached result: {ZID} is unauthorized to Liveliness Token (ingress) on a/b"),
    ) == {"not_its_own": {"bob": 2}}
    assert counted(line(f"Using cached result: {ZID} {put}")) == {"not_its_own": {UNKNOWN: 1}}
    assert counted(line(f"{SUBJECT} is unauthorized to Put (egress) on gossamer/{RUN}/message/bob/0")) == {}
    when = "\x1b[2m2026-11-22T02:13:01.05Z\x1b[0m \x1b[35mTRACE\x1b[0m rx-0 ThreadId(11)"
    coloured = when + " \x1b[2m{}\x1b[0m\x1b[2m:\x1b[0m {}"
    target = "zenoh::net::routing::interceptor::access_control"
    assert counted(coloured.format(target, f"{SUBJECT} {put}")) == {"not_its_own": {"bob": 1}}


ACTIONS = (
    "Query",
    "Reply",
    "Put",
    "Delete",
    "Declare/Undeclare Subscriber",
    "Declare/Undeclare Queryable",
    "Declare/Undeclare Liveliness Token",
    "Liveliness Query",
    "Declare Liveliness Subscriber",
)


def foreseen(key, subjects=(SUBJECT,), thread="acc-0 ThreadId(05)"):
    """What Zenoh writes when it decides ahead all that might ever be said under a key."""
    lines = [line(f"ACL (ingress): caching permissions for `{key}` ...", thread=thread)]
    for action in ACTIONS:
        lines += [
            line(f"{each} is unauthorized to {action} (ingress) on {key}", thread=thread) for each in subjects
        ]
    return lines


def test_what_nobody_has_said_yet_is_not_counted():
    key = f"gossamer/{RUN}/message"
    other = SUBJECT.replace("lo", "eth0")
    assert counted(*foreseen(key), *foreseen(key), *foreseen(key, (SUBJECT, other))) == {}
    put = line(f"{SUBJECT} is unauthorized to Put (ingress) on {key}", thread="acc-0 ThreadId(05)")
    assert counted(*foreseen(key), put) == {"not_its_own": {"bob": 1}}
    # Between those lines another thread writes its own.
    elsewhere = line(f"{SUBJECT} is unauthorized to Put (ingress) on {key}", thread="rx-1 ThreadId(12)")
    mixed = [each for pair in zip(foreseen(key), [elsewhere] * 10, strict=True) for each in pair]
    assert counted(*mixed) == {"not_its_own": {"bob": 10}}
    # Of a peer that no rule is about nothing is decided ahead.
    assert counted(foreseen(key)[0], put) == {"not_its_own": {"bob": 1}}


def accepted(name, address="127.0.0.1:55042"):
    return tls(f"Accepted TLS connection on 127.0.0.1:17447: {address}. Common Name: {name}.", "DEBUG")


OPENED = (
    "New transport link {}: TransportLinkUnicast {{ link: Link {{ src: tls/127.0.0.1:17447, dst: tls/127.0.0.1:55042, "
    "mtu: 49152, is_reliable: true, is_streamed: true }}, config: TransportLinkUnicastConfig {{ priorities: None }} }}"
)


def test_a_valid_certificate_of_nobody_here():
    stranger = line(
        f"{ZID} did not match any configured ACL subject. Default permission `Deny` will be applied on all messages",
        level="INFO",
    )
    incoming = line(
        OPENED.format(f"accepted from {ZID} to aa3a33"),
        "zenoh_transport::unicast::establishment::accept",
        "DEBUG",
    )
    assert counted(accepted("mallory"), stranger, incoming) == {"not_admitted": {"mallory": 1}}
    outgoing = line(
        OPENED.format(f"opened from aa3a33 to {ZID}"),
        "zenoh_transport::unicast::establishment::open",
        "DEBUG",
    )
    assert counted(stranger, outgoing) == {"not_admitted": {"127.0.0.1": 1}}
    assert counted(accepted("bob"), incoming) == {}


def test_a_certificate_that_expires_while_connected():
    text = "Closing TLS link 127.0.0.1:17447 => 127.0.0.1:55042 : remote certificate chain expired"
    closing = line(text, "zenoh_link_commons::tls::expiration", "WARN")
    assert counted(accepted("dave"), closing) == {"expired_certificate": {"dave": 1}}
    assert counted(closing) == {"expired_certificate": {"127.0.0.1": 1}}


def test_the_rest_of_zenohs_log(caplog):
    caplog.set_level(logging.DEBUG)
    scouting = line(
        "Scouting delay elapsed before start conditions are met.", "zenoh::net::runtime::orchestrator", "WARN"
    )
    files = tls(f"Too many open files (os error 24). {HINT}")
    span = "2026-11-22T02:12:21.125Z ERROR ThreadId(01) sess{zid=fe8f}:declare{id=6 expr=1:Sender:/*/*}: zenoh::api: oh"
    trying = line("Try to connect: tls/127.0.0.1:1", "zenoh::net::runtime::orchestrator", "DEBUG")
    assert counted(scouting, files, span, trying) == {}
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("WARNING", "Zenoh: zenoh::net::runtime::orchestrator: " + scouting.split("orchestrator: ")[1]),
        ("WARNING", f"Zenoh: zenoh_link_tls::unicast: Too many open files (os error 24). {HINT}"),
        ("ERROR", "Zenoh: zenoh::api: oh"),
    ]


@pytest.mark.parametrize(
    "text", ["", "update 7", "2026-11-22 WARN: mine", "WARN zenoh::net: not as Zenoh writes"]
)
def test_what_others_write_is_not_zenohs(text):
    assert not LogReader(Refusals()).read(text)


# --- Live, over TLS -----------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(condition, seconds=DEADLINE):
    """What a condition gives once it is true."""
    end, pause = time.monotonic() + seconds, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.01)
    return value


class Process:
    """An agent in a process of its own."""

    def __init__(self, **choices):
        script = Path(__file__).with_name("one_agent.py")
        self.process = subprocess.Popen(
            [sys.executable, script, json.dumps(choices)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines, self.seen = queue.Queue(), []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.expect(lambda said: "ready" in said)

    def read(self):
        for text in self.process.stdout:
            self.lines.put(text.rstrip("\n"))
        self.lines.put(None)

    def expect(self, condition):
        """The next thing said for which a condition holds."""
        end = time.monotonic() + DEADLINE
        while True:
            text = self.lines.get(timeout=max(end - time.monotonic(), 0.01))
            assert text is not None, "the agent has ended"
            said = json.loads(text) if text.startswith("{") else {"raw": text}
            self.seen.append(said)
            if condition(said):
                return said

    def told(self, condition):
        """The first thing said for which a condition holds, from the beginning."""
        return next(filter(condition, self.seen), None) or self.expect(condition)

    def command(self, *words):
        print(*words, file=self.process.stdin, flush=True)

    def counts(self):
        self.command("counts")
        return self.expect(lambda said: "counts" in said)["counts"]

    def refused(self, reason, who):
        return self.counts().get(reason, {}).get(who, 0)

    def heard_evil(self):
        return [said for said in self.seen if said.get("text") == "evil"]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(DEADLINE) == 0
        self.reader.join()
        self.process.stdout.close()
        return [text for text in list(self.lines.queue) if text is not None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates of all sorts; those of another authority are in a folder within."""
    folder = tmp_path_factory.mktemp("keys") / "mine"

    def long_ago():
        return time.time() - 100 * DAY

    credentials.create_authority(folder, "run", clock=long_ago)
    for name in ("alice", "bob", "carol", "observer-olga", "mallory"):
        credentials.issue(folder, name)
    credentials.issue(folder, "eve", days=3, clock=long_ago)
    credentials.create_authority(folder / "other", "run")
    credentials.issue(folder / "other", "bob")
    return folder


@pytest.fixture(scope="module")
def ports():
    return free_port(), free_port()


@pytest.fixture(scope="module")
def carol(folder, ports):
    """Whom all the others attack: she listens at the first port, and connects to the second."""
    listening, connecting = ports
    process = Process(
        folder=str(folder),
        name="carol",
        run=RUN,
        agents=AGENTS,
        observers=OBSERVERS,
        listen=[f"tls/127.0.0.1:{listening}"],
        connect=[f"tls/127.0.0.1:{connecting}"],
        largest=LARGEST,
    )
    yield process
    process.close()


def credentials_of(folder, name, authority=None):
    return Credentials(
        str((authority or folder) / "authority.pem"), f"{folder}/{name}.pem", f"{folder}/{name}.key"
    )


def config_of(who, listen=(), connect=(), name="bob", mode="peer", **more):
    """Of somebody who keeps to no rules of access."""
    config = zenoh_config(listen, connect, who, Access(RUN, name, (name,)) if who else None)
    config.pop("access_control", None)
    return config | {"mode": mode} | more


@contextmanager
def opened(config):
    session = open_session(config)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def connected(config):
    with opened(config) as session:
        until(
            lambda: list(session.info.peers_zid()) + list(session.info.routers_zid()) + session.info.links()
        )
        yield session


@contextmanager
def honest(folder, port, name="alice"):
    """A session that keeps to the rules."""
    access = Access(RUN, name, AGENTS)
    config = zenoh_config([], [f"tls/127.0.0.1:{port}"], credentials_of(folder, name), access)
    with connected(config) as session:
        yield session


def publish(session, key, data=b"hello"):
    """Once somebody listens."""
    publisher = session.declare_publisher(key)
    until(lambda: publisher.matching_status.matching)
    publisher.put(data)
    publisher.undeclare()


def hears_nothing_but_alice(carol, folder, port):
    """Whatever was attempted, the honest neighbour's message arrives and no other."""
    with honest(folder, port) as session:
        publish(session, SPACE.message("alice", 0))
        carol.expect(lambda said: said.get("heard") == SPACE.message("alice", 0))
    assert not carol.heard_evil()


def test_nobody_is_blamed_for_what_is_allowed(carol, folder, ports):
    with honest(folder, ports[0]) as alice:
        token = alice.liveliness().declare_token(SPACE.alive("alice", 7))
        carol.expect(lambda said: said.get("token") == SPACE.alive("alice", 7) and said["appeared"])
        queryable = alice.declare_queryable(
            SPACE.status("alice"), lambda query: query.reply(SPACE.status("alice"), b"well")
        )
        replies = [str(reply.ok.key_expr) for reply in alice.get(SPACE.status(), timeout=5.0) if reply.ok]
        assert sorted(replies) == [SPACE.status("alice"), SPACE.status("carol")]
        tokens = [str(reply.ok.key_expr) for reply in alice.liveliness().get(SPACE.alive("*")) if reply.ok]
        assert SPACE.alive("carol", 1) in tokens
        publish(alice, SPACE.message("alice", 0))
        carol.expect(lambda said: said.get("heard") == SPACE.message("alice", 0))
        token.undeclare()
        queryable.undeclare()
        carol.expect(lambda said: said.get("token") == SPACE.alive("alice", 7) and not said["appeared"])
    assert "alice" not in str(carol.counts())


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("not_tls", lambda folder, port: config_of(None, connect=[f"tcp/127.0.0.1:{port}"])),
        (
            "foreign_certificate",
            lambda folder, port: config_of(
                credentials_of(folder / "other", "bob", authority=folder), connect=[f"tls/127.0.0.1:{port}"]
            ),
        ),
        (
            "declined",  # whoever does not trust carol goes away first
            lambda folder, port: config_of(
                credentials_of(folder / "other", "bob"), connect=[f"tls/127.0.0.1:{port}"]
            ),
        ),
        (
            "expired_certificate",
            lambda folder, port: config_of(credentials_of(folder, "eve"), connect=[f"tls/127.0.0.1:{port}"]),
        ),
        (
            "no_certificate",
            lambda folder, port: (
                config_of(credentials_of(folder, "bob"), connect=[f"tls/127.0.0.1:{port}"])
                | {"transport/link/tls/enable_mtls": False}
            ),
        ),
    ],
)
def test_who_has_no_valid_certificate_is_not_let_in(carol, folder, ports, reason, make):
    before = carol.refused(reason, UNKNOWN)
    with opened(make(folder, ports[0])) as session:
        until(lambda: carol.refused(reason, UNKNOWN) > before)
        session.put(SPACE.message("bob", 99), b"evil")
        assert not session.info.links()
        hears_nothing_but_alice(carol, folder, ports[0])
        assert not session.info.links()


# As a client Zenoh sends what it is told to; as a peer only what somebody has subscribed to.
@pytest.mark.parametrize("mode", ["peer", "client"])
def test_another_agents_name_cannot_be_used(carol, folder, ports, mode):
    config = config_of(credentials_of(folder, "bob"), connect=[f"tls/127.0.0.1:{ports[0]}"], mode=mode)
    with connected(config) as bob:
        alices = SPACE.message("alice", 5)
        for key in (alices, f"{alices}\nforged", SPACE.message("*", 5), f"gossamer/{RUN}/**"):
            before = carol.refused("not_its_own", "bob")
            if mode == "peer":
                publish(bob, key, b"evil")
            else:
                bob.put(key, b"evil")
            until(lambda before=before: carol.refused("not_its_own", "bob") > before)
        carol.told(
            lambda said: said.get("raw", "").startswith("log: carol refused bob (not_its_own, 1 times")
        )
        own = SPACE.message("bob", 5)
        publish(bob, own)
        carol.expect(lambda said: said.get("heard") == own)
        hears_nothing_but_alice(carol, folder, ports[0])


def test_another_agents_token_cannot_be_shown(carol, folder, ports):
    with connected(config_of(credentials_of(folder, "bob"), connect=[f"tls/127.0.0.1:{ports[0]}"])) as bob:
        before = carol.refused("not_its_own", "bob")
        tokens = [bob.liveliness().declare_token(SPACE.alive(name, 9)) for name in ("alice", "bob")]
        carol.expect(lambda said: said.get("token") == SPACE.alive("bob", 9))
        until(lambda: carol.refused("not_its_own", "bob") > before)
        hears_nothing_but_alice(carol, folder, ports[0])
        assert SPACE.alive("alice", 9) not in [said.get("token") for said in carol.seen]
        for token in tokens:
            token.undeclare()


def test_another_agents_answers_cannot_be_given(carol, folder, ports):
    config = config_of(credentials_of(folder, "bob"), connect=[f"tls/127.0.0.1:{ports[0]}"])
    with connected(config) as bob:
        before = carol.refused("not_its_own", "bob")

        def lie(query):
            with query:
                query.reply(SPACE.status("alice"), b"evil")
                query.reply(SPACE.status("bob"), b"well")

        bob.declare_queryable(SPACE.status("bob"), lie)
        bob.declare_queryable(SPACE.status("alice"), lie)

        def answers():
            carol.command("ask", SPACE.status())
            return carol.expect(lambda said: "answers" in said)["answers"]

        got = until(lambda: SPACE.status("bob") in (found := answers()) and found)
        assert SPACE.status("alice") not in got
        # One refusal is of the question that it wanted to be asked, one of the answer that it gave.
        until(lambda: carol.refused("not_its_own", "bob") >= before + 2)


@pytest.mark.parametrize("mode", ["peer", "client"])
def test_an_observer_looks_on(carol, folder, ports, mode):
    config = config_of(
        credentials_of(folder, "observer-olga"), connect=[f"tls/127.0.0.1:{ports[0]}"], mode=mode
    )
    with connected(config) as olga:
        spied = queue.Queue()
        olga.declare_subscriber(f"gossamer/{RUN}/**", spied.put)
        replies = until(lambda: [each.ok for each in olga.get(SPACE.status(), timeout=5.0) if each.ok])
        assert [str(reply.key_expr) for reply in replies] == [SPACE.status("carol")]
        tokens = [str(reply.ok.key_expr) for reply in olga.liveliness().get(SPACE.alive("*")) if reply.ok]
        assert tokens == [SPACE.alive("carol", 1)]
        if mode == "client":
            before = carol.refused("not_its_own", "observer-olga")
            for key in (SPACE.message("alice", 6), SPACE.message("carol", 6)):
                olga.put(key, b"evil")
            until(lambda: carol.refused("not_its_own", "observer-olga") >= before + 2)
        own, heard_by_alice = SPACE.message("carol", 6), queue.Queue()
        with honest(folder, ports[0]) as alice:
            alice.declare_subscriber(own, heard_by_alice.put)
            # carol learns of the subscriber with the next thing that alice says
            publish(alice, SPACE.message("alice", 7))
            carol.expect(lambda said: said.get("heard") == SPACE.message("alice", 7))
            carol.command("say", own, "hello")
            assert heard_by_alice.get(timeout=DEADLINE).payload.to_string() == "hello"
        assert [reply for reply in olga.get(SPACE.status(), timeout=5.0) if reply.ok]
        assert "hello" not in [sample.payload.to_string() for sample in list(spied.queue)]
    assert not carol.heard_evil()


def test_a_certificate_of_nobody_in_the_run(carol, folder, ports):
    config = config_of(
        credentials_of(folder, "mallory"), connect=[f"tls/127.0.0.1:{ports[0]}"], mode="client"
    )
    with connected(config) as mallory:
        until(lambda: carol.refused("not_admitted", "mallory"))
        mallory.put(SPACE.message("mallory", 0), b"evil")
        assert not [reply for reply in mallory.get(SPACE.status(), timeout=0.5) if reply.ok]
        assert not [reply for reply in mallory.liveliness().get(SPACE.alive("*"), timeout=0.5) if reply.ok]
        hears_nothing_but_alice(carol, folder, ports[0])


def test_nothing_is_passed_on(carol, folder, ports):
    """A neighbour that says it is a client would have carol route for it, and others would take that for her words."""
    tapped = queue.Queue()
    with (
        connected(config_of(credentials_of(folder, "alice"), connect=[f"tls/127.0.0.1:{ports[0]}"])) as alice,
        connected(
            config_of(credentials_of(folder, "bob"), connect=[f"tls/127.0.0.1:{ports[0]}"], mode="client")
        ) as bob,
    ):
        alice.declare_subscriber(f"gossamer/{RUN}/**", tapped.put)
        publish(bob, SPACE.message("bob", 3))
        carol.expect(lambda said: said.get("heard") == SPACE.message("bob", 3))
        carol.command("say", SPACE.message("carol", 3), "hello")
        assert str(tapped.get(timeout=DEADLINE).key_expr) == SPACE.message("carol", 3)


def test_an_impostor_at_a_neighbours_address(carol, folder, ports):
    address = f"127.0.0.1:{ports[1]}"
    with opened(config_of(credentials_of(folder / "other", "bob"), listen=[f"tls/{address}"])):
        until(lambda: carol.refused("foreign_certificate", address))
    with opened(config_of(None, listen=[f"tcp/{address}"])) as plain:
        assert not plain.info.links()
    access = Access(RUN, "alice", AGENTS)
    with opened(zenoh_config([f"tls/{address}"], [], credentials_of(folder, "alice"), access)) as alice:
        publish(alice, SPACE.message("alice", 8))
        carol.expect(lambda said: said.get("heard") == SPACE.message("alice", 8))


def test_a_message_that_is_too_large(carol, folder, ports):
    with honest(folder, ports[0], "bob") as bob:
        publish(bob, SPACE.message("bob", 1), b"evil" + bytes(LARGEST + 5000))
        publish(bob, SPACE.message("bob", 2), bytes(LARGEST))
        assert carol.expect(lambda said: said.get("heard") == SPACE.message("bob", 2))["size"] == LARGEST
    assert SPACE.message("bob", 1) not in [said.get("heard") for said in carol.seen]


def test_a_connection_ends_with_its_certificate(carol, folder, ports):
    credentials.issue(folder, "dave", days=8 / DAY)
    with honest(folder, ports[0], "dave") as dave:
        publish(dave, SPACE.message("dave", 0))
        carol.expect(lambda said: said.get("heard") == SPACE.message("dave", 0))
        until(lambda: carol.refused("expired_certificate", "dave"))
        until(lambda: not dave.info.links())
        dave.put(SPACE.message("dave", 1), b"evil")
        hears_nothing_but_alice(carol, folder, ports[0])


def test_standard_output_stays_what_it_was(folder):
    alone = {"agents": ["alice"], "observers": [], "listen": [], "connect": [], "largest": LARGEST}
    agent = Process(folder=str(folder), name="alice", run=RUN, **alone, unfinished="unfinished,")
    for how, text in (("print", "printed"), ("write", "written"), ("run", "inherited")):
        agent.command(how, text)
        agent.expect(lambda said, text=text: said.get("raw") == text)
    agent.command("again")
    assert "Zenoh's log is read already" in agent.expect(lambda said: "again" in said)["again"]
    agent.command("where")
    where = agent.expect(lambda said: "where" in said)["where"]
    assert len(where) == 2
    assert 1 not in where, "what Python prints must not go through the reader, which logs itself"
    # who leaves hears of its own token once more, at any moment until it has ended
    said = [line for line in agent.close() if '"token"' not in line]
    assert said[-2:] == ['unfinished,{"closed": {}}', "restored"]
    assert not [said for said in agent.seen if "ThreadId" in said.get("raw", "")]
