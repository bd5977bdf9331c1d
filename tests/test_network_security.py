"""Access to an agent: Zenoh's configuration, and live attacks over TLS on loopback that must change nothing."""

import json
import os
import queue
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="certificates need the extra gossamer[network]")
zenoh = pytest.importorskip("zenoh", reason="the network needs the extra gossamer[network]")

from gossamer.errors import InputError  # noqa: E402
from gossamer.network import credentials  # noqa: E402
from gossamer.network.access import Access, Credentials, access_control, zenoh_config  # noqa: E402
from gossamer.network.refusals import Refusals, printable  # noqa: E402
from gossamer.network.topics import Topics  # noqa: E402

RUN = "0123456789abcdef" * 2
TOPICS = Topics(RUN)
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
    message = "without certificates; give certificates, a loopback address such as 127.0.0.1, or insecure"
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
            InputError, match="which is plaintext; with certificates, all endpoints must begin with tls/"
        ):
            secure(listen, connect)
    with pytest.raises(InputError, match="insecure is for agents without certificates"):
        secure(["tls/127.0.0.1:0"], insecure=True)
    with pytest.raises(InputError, match="access is missing"):
        zenoh_config([], [], CREDENTIALS, None)
    with pytest.raises(InputError, match="which requires certificates"):
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
        with pytest.raises(InputError, match="accepted options are"):
            secure(listen, connect)
    assert secure(["tls/127.0.0.1:0?prio=6-7;rel=1#iface=lo;so_sndbuf=65000"])


def test_ports_and_addresses_that_zenoh_cannot_use():
    with pytest.raises(InputError, match="its port must be at most 65535"):
        secure(["tls/127.0.0.1:65536"])
    with pytest.raises(InputError, match="its port must be between 1 and 65535"):
        secure([], ["tls/127.0.0.1:0"])
    with pytest.raises(InputError, match="cannot verify a certificate for an IPv6 address; give a host name"):
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
        answers = [TOPICS.status(name), TOPICS.newest(name)]
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
        refusals.refuse("not_ours", "bob", "the checksum is 0")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "alice refused bob (not_ours, 1 times so far): the checksum is 0"
    assert [line.split()[4] for line in lines] == ["1", "2", "4", "8"]
    assert refusals.counts() == {"not_ours": {"bob": 9}}


def test_all_threads_are_counted():
    refusals = Refusals()
    threads = [
        threading.Thread(target=lambda: [refusals.refuse("not_ours", "bob") for _ in range(1000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refusals.counts() == {"not_ours": {"bob": 4000}}


def test_changing_names_fills_no_memory():
    refusals = Refusals()
    for number in range(1500):
        refusals.refuse("not_ours", f"agent-{number}")
    counts = refusals.counts()["not_ours"]
    assert len(counts) == 1001
    assert counts["others"] == 500


def test_the_log_is_not_written_by_others(caplog):
    Refusals("alice").refuse("not_ours", "bob\n", "\x1b[31mred\nalice refused carol" + "x" * 1000)
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert line.startswith(
        "alice refused bob\\n (not_ours, 1 times so far): \\x1b[31mred\\nalice refused carolxxx"
    )
    assert len(line) < 600
    assert printable("é ± ü") == "é ± ü"


# --- Zenoh's log --------------------------------------------------------------------------------------------------


def environment(**more):
    return {name: value for name, value in os.environ.items() if name != "RUST_LOG"} | more


@pytest.mark.parametrize(("variables", "logs"), [({}, False), ({"RUST_LOG": "zenoh=debug"}, True)])
def test_zenoh_logs_what_rust_log_selects_and_errors_by_default(variables, logs):
    program = (
        "from gossamer.network.access import zenoh_config\n"
        "from gossamer.network.session import Session\n"
        "for _ in range(2):\n"
        "    Session(zenoh_config(['tcp/127.0.0.1:0'], [], None, None)).close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(**variables), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("DEBUG" in done.stdout) == logs == bool(done.stdout)


# --- Live, over TLS -----------------------------------------------------------------------------------------------
#
# A refusal is seen in what it does: the stranger's connection fails with the reason of the TLS alert that it was sent;
# or a permitted message arrives, and a forged one does not that was sent before it on the same link, which keeps order.


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(condition, seconds=DEADLINE):
    """Return what the condition gives once it is true."""
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
            env=environment(),
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
        """Read up to the next line for which a condition holds."""
        end = time.monotonic() + DEADLINE
        while True:
            text = self.lines.get(timeout=max(end - time.monotonic(), 0.01))
            assert text is not None, "the agent has ended"
            said = json.loads(text) if text.startswith("{") else {"logged": text}
            self.seen.append(said)
            if condition(said):
                return said

    def hears(self, key):
        return self.expect(lambda said: said.get("heard") == key)

    def command(self, *words):
        print(*words, file=self.process.stdin, flush=True)

    def links(self):
        """Names of those that are connected."""
        self.command("links")
        return self.expect(lambda said: "links" in said)["links"]

    def answers(self, key, seconds=DEADLINE):
        self.command("ask", key, seconds)
        return self.expect(lambda said: "answers" in said)["answers"]

    def times(self, **what):
        """How often it has said this, as far as its output was read."""
        return sum(what.items() <= said.items() for said in self.seen)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(DEADLINE) == 0
        self.reader.join()
        self.process.stdout.close()


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
def attacked(folder, ports):
    """An agent that listens at the first port and connects to the second."""
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


@pytest.fixture
def carol(attacked):
    """The agent that is attacked, with nothing seen yet."""
    attacked.seen.clear()
    return attacked


def credentials_of(folder, name, authority=None):
    return Credentials(
        str((authority or folder) / "authority.pem"), f"{folder}/{name}.pem", f"{folder}/{name}.key"
    )


def config_of(who, port, protocol="tls", mode="peer"):
    """Configuration of an attacker, which keeps to no rules of access."""
    access = Access(RUN, "bob", ("bob",)) if who else None
    config = zenoh_config([], [f"{protocol}/127.0.0.1:{port}"], who, access)
    config.pop("access_control", None)
    return config | {"mode": mode}


def open_session(config):
    settings = zenoh.Config()
    for key, value in config.items():
        settings.insert_json5(key, json.dumps(value))
    return zenoh.open(settings)


@contextmanager
def connected(config):
    with closing(open_session(config)) as session:
        until(lambda: session.info.links())
        yield session


@contextmanager
def honest(folder, port, name="alice"):
    """A session that keeps to the rules."""
    access = Access(RUN, name, AGENTS)
    config = zenoh_config([], [f"tls/127.0.0.1:{port}"], credentials_of(folder, name), access)
    with connected(config) as session:
        yield session


def publish(session, key, data=b"hello"):
    """Publish once a subscriber is known."""
    publisher = session.declare_publisher(key)
    until(lambda: publisher.matching_status.matching)
    publisher.put(data)
    publisher.undeclare()


def hears_only_alice(carol, folder, port):
    """Whatever was attempted before, the honest neighbour's message arrives and no forged one."""
    with honest(folder, port) as alice:
        publish(alice, TOPICS.message("alice", 0))
        carol.hears(TOPICS.message("alice", 0))
    assert not carol.times(text="evil")


def test_an_agent_may_send_what_is_its_own(carol, folder, ports):
    with honest(folder, ports[0]) as alice:
        token = alice.liveliness().declare_token(TOPICS.alive("alice", 7))
        carol.expect(lambda said: said.get("token") == TOPICS.alive("alice", 7) and said["appeared"])
        queryable = alice.declare_queryable(
            TOPICS.status("alice"), lambda query: query.reply(TOPICS.status("alice"), b"well")
        )
        replies = [str(reply.ok.key_expr) for reply in alice.get(TOPICS.status(), timeout=5.0) if reply.ok]
        assert sorted(replies) == [TOPICS.status("alice"), TOPICS.status("carol")]
        tokens = [str(reply.ok.key_expr) for reply in alice.liveliness().get(TOPICS.alive("*")) if reply.ok]
        assert TOPICS.alive("carol", 1) in tokens
        publish(alice, TOPICS.message("alice", 0))
        carol.hears(TOPICS.message("alice", 0))
        token.undeclare()
        queryable.undeclare()
        carol.expect(lambda said: said.get("token") == TOPICS.alive("alice", 7) and not said["appeared"])


# Each differs in one thing from "bob", who is let in; the pattern is what its own end is told.
STRANGERS = {
    "plaintext": (lambda folder, port: config_of(None, port, "tcp"), "early eof|reset by peer"),
    "no_certificate": (
        lambda folder, port: (
            config_of(credentials_of(folder, "bob"), port) | {"transport/link/tls/enable_mtls": False}
        ),
        "received fatal alert: CertificateRequired",
    ),
    "certificate_of_another_authority": (
        lambda folder, port: config_of(credentials_of(folder / "other", "bob", authority=folder), port),
        "received fatal alert: DecryptError",
    ),
    "expired_certificate": (
        lambda folder, port: config_of(credentials_of(folder, "eve"), port),
        "received fatal alert: CertificateExpired",
    ),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_cannot_connect(carol, folder, ports, stranger):
    make, says = STRANGERS[stranger]
    once = {"connect/timeout_ms": 0, "connect/exit_on_failure": True}
    with pytest.raises(zenoh.ZError, match=says):
        open_session(make(folder, ports[0]) | once).close()
    hears_only_alice(carol, folder, ports[0])
    assert not [said for said in carol.seen if "logged" in said]


# As a client Zenoh sends what it is told to; as a peer only what somebody has subscribed to.
@pytest.mark.parametrize("mode", ["peer", "client"])
def test_another_agents_name_cannot_be_used(carol, folder, ports, mode):
    with connected(config_of(credentials_of(folder, "bob"), ports[0], mode=mode)) as bob:
        for key in (TOPICS.message("alice", 5), TOPICS.message("*", 5), f"gossamer/{RUN}/**"):
            if mode == "peer":
                publish(bob, key, b"evil")
            else:
                bob.put(key, b"evil")
        publish(bob, TOPICS.message("bob", 5))
        carol.hears(TOPICS.message("bob", 5))  # all that bob had sent before was dropped
        assert not carol.times(text="evil")
    hears_only_alice(carol, folder, ports[0])


def test_another_agents_token_cannot_be_shown(carol, folder, ports):
    with connected(config_of(credentials_of(folder, "bob"), ports[0])) as bob:
        tokens = [bob.liveliness().declare_token(TOPICS.alive(name, 9)) for name in ("alice", "bob")]
        carol.expect(lambda said: said.get("token") == TOPICS.alive("bob", 9))
        assert not carol.times(token=TOPICS.alive("alice", 9))
        for token in tokens:
            token.undeclare()


def test_another_agents_answers_cannot_be_given(carol, folder, ports):
    with connected(config_of(credentials_of(folder, "bob"), ports[0])) as bob:
        asked = queue.Queue()

        def lie(query):
            with query:
                asked.put(str(query.selector))
                query.reply(TOPICS.status("alice"), b"evil")
                query.reply(TOPICS.status("bob"), b"well")

        bob.declare_queryable(TOPICS.status("alice"), lie)
        bob.declare_queryable(TOPICS.status("bob"), lie)
        # The true answer follows the forged one, and the permitted declaration the forbidden one.
        answers = until(
            lambda: TOPICS.status("bob") in (found := carol.answers(TOPICS.status(), 1.0)) and found
        )
        assert TOPICS.status("alice") not in answers
        assert carol.answers(TOPICS.status("alice")) == []
        assert TOPICS.status("alice") not in list(asked.queue)


@pytest.mark.parametrize("mode", ["peer", "client"])
def test_an_observer_may_only_ask(carol, folder, ports, mode):
    with connected(config_of(credentials_of(folder, "observer-olga"), ports[0], mode=mode)) as olga:
        spied = olga.declare_subscriber(f"gossamer/{RUN}/**", allowed_origin=zenoh.Locality.REMOTE)
        for key in (TOPICS.message("alice", 6), TOPICS.message("carol", 6)):
            olga.put(key, b"evil")
        # Her question follows what she has published, on the same link.
        replies = until(lambda: [each.ok for each in olga.get(TOPICS.status(), timeout=5.0) if each.ok])
        assert [str(reply.key_expr) for reply in replies] == [TOPICS.status("carol")]
        tokens = [str(reply.ok.key_expr) for reply in olga.liveliness().get(TOPICS.alive("*")) if reply.ok]
        assert tokens == [TOPICS.alive("carol", 1)]
        own, heard_by_alice = TOPICS.message("carol", 6), queue.Queue()
        with honest(folder, ports[0]) as alice:
            alice.declare_subscriber(own, heard_by_alice.put)
            # carol learns of the subscriber with the next thing that alice says
            publish(alice, TOPICS.message("alice", 7))
            carol.hears(TOPICS.message("alice", 7))
            carol.command("say", own, "hello")
            assert heard_by_alice.get(timeout=DEADLINE).payload.to_string() == "hello"
        # carol's answer follows what she has published, on the same link.
        assert [reply for reply in olga.get(TOPICS.status(), timeout=5.0) if reply.ok]
        assert spied.try_recv() is None
    assert not carol.times(text="evil")


@pytest.mark.parametrize("name", ["bob", "mallory"])
def test_a_valid_certificate_gives_access_to_members_only(carol, folder, ports, name):
    """Bob is a member, as a control. A link keeps order: when carol sees its end, all that was sent has arrived."""
    member, own = name in AGENTS, TOPICS.message(name, 4)
    carol.links()  # reads its output up to here
    asked, heard = carol.times(asked=True), carol.times(heard=own)
    with connected(config_of(credentials_of(folder, name), ports[0], mode="client")) as session:
        until(lambda: name in carol.links())
        session.put(own, b"hello")
        replies = [each for each in session.get(TOPICS.status(), timeout=DEADLINE) if each.ok]
        tokens = [each for each in session.liveliness().get(TOPICS.alive("*"), timeout=DEADLINE) if each.ok]
        assert (len(replies), len(tokens)) == (member, member)
    until(lambda: name not in carol.links())
    with honest(folder, ports[0]) as alice:
        assert until(lambda: [each for each in alice.get(TOPICS.status(), timeout=5.0) if each.ok])
        publish(alice, TOPICS.message("alice", 4))
        carol.hears(TOPICS.message("alice", 4))
    assert carol.times(heard=own) == heard + member
    assert carol.times(asked=True) == asked + 1 + member


def test_nothing_is_passed_on(carol, folder, ports):
    """A neighbour that says it is a client would have carol route for it, under carol's certificate."""
    tapped = queue.Queue()
    with (
        connected(config_of(credentials_of(folder, "alice"), ports[0])) as alice,
        connected(config_of(credentials_of(folder, "bob"), ports[0], mode="client")) as bob,
    ):
        alice.declare_subscriber(f"gossamer/{RUN}/**", tapped.put)
        publish(bob, TOPICS.message("bob", 3))
        carol.hears(TOPICS.message("bob", 3))
        carol.command("say", TOPICS.message("carol", 3), "hello")
        assert str(tapped.get(timeout=DEADLINE).key_expr) == TOPICS.message("carol", 3)


def test_an_impostor_at_a_neighbours_address(carol, folder, ports):
    foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    foreign.load_cert_chain(folder / "other" / "bob.pem", folder / "other" / "bob.key")
    with socket.create_server(("127.0.0.1", ports[1])) as listener:
        listener.settimeout(DEADLINE)
        connection, _ = listener.accept()
        with connection, pytest.raises(ssl.SSLError, match="ALERT_DECRYPT_ERROR"):
            foreign.wrap_socket(connection, server_side=True)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as received:
            connection.sendall(b"\x02\x00hi")  # in plaintext, a frame of Zenoh's
            assert records(received) == [HANDSHAKE, ALERT]
    access = Access(RUN, "alice", AGENTS)
    config = zenoh_config([f"tls/127.0.0.1:{ports[1]}"], [], credentials_of(folder, "alice"), access)
    with closing(open_session(config)) as alice:
        publish(alice, TOPICS.message("alice", 8))
        carol.hears(TOPICS.message("alice", 8))


HANDSHAKE, ALERT = 22, 21


def records(stream):
    """Types of the TLS records up to the end of a connection."""
    found = []
    while head := stream.read(5):
        found.append(head[0])
        stream.read(int.from_bytes(head[3:]))
    return found


def test_a_message_that_is_too_large(carol, folder, ports):
    with honest(folder, ports[0], "bob") as bob:
        publish(bob, TOPICS.message("bob", 1), b"evil" + bytes(LARGEST + 5000))
        publish(bob, TOPICS.message("bob", 2), bytes(LARGEST))
        assert carol.hears(TOPICS.message("bob", 2))["size"] == LARGEST
    assert not carol.times(heard=TOPICS.message("bob", 1))


def test_a_connection_ends_with_its_certificate(carol, folder, ports):
    credentials.issue(folder, "dave", days=8 / DAY)
    with honest(folder, ports[0], "dave") as dave:
        publish(dave, TOPICS.message("dave", 0))
        carol.hears(TOPICS.message("dave", 0))
        until(lambda: not dave.info.links())
        dave.put(TOPICS.message("dave", 1), b"evil")
        hears_only_alice(carol, folder, ports[0])
        assert not dave.info.links()
