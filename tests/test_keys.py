"""An authority and its certificates: what they say, who may read the keys, and what is wrong where something is."""

import contextlib
import ipaddress
import os
import ssl
import stat
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("cryptography", reason="certificates need the extra gossamer[network]")

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gossamer.errors import InputError
from gossamer.network import credentials

DAY = 86400.0
NOW = 1_800_000_000.25


def now():
    return NOW


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "keys"
    credentials.create_authority(folder, "demo", clock=now)
    return folder


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_what_a_certificate_says(folder):
    addresses = ("192.0.2.7", "2001:db8::1", "robot-7.example.org")
    found = certificate(credentials.issue(folder, "robot-7", addresses, days=2, clock=now))
    authority = certificate(folder / "authority.pem")
    assert [each.value for each in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["robot-7"]
    assert found.issuer == authority.subject
    found.verify_directly_issued_by(authority)
    other = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert other.get_values_for_type(x509.DNSName) == ["robot-7.example.org"]
    assert [str(each) for each in other.get_values_for_type(x509.IPAddress)] == list(addresses[:2])
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(
        True, 0
    )
    issued = datetime(2027, 1, 15, 8, 0, 0, tzinfo=UTC)
    assert found.not_valid_after_utc == issued + timedelta(days=2)
    assert found.not_valid_before_utc == issued - timedelta(hours=1)


def test_what_a_certificate_says_by_default(folder):
    found = certificate(credentials.issue(folder, "ada", clock=now))
    other = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert other.get_values_for_type(x509.DNSName) == ["localhost"]
    assert other.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert found.not_valid_after_utc - found.not_valid_before_utc == timedelta(days=365, hours=1)


def test_another_implementation_takes_them(tmp_path):
    folder = tmp_path / "keys"
    credentials.create_authority(folder, "demo")
    files = credentials.KeyFiles(
        folder / "authority.pem", credentials.issue(folder, "ada"), folder / "ada.key"
    )
    ends = {}
    buffers = {side: (ssl.MemoryBIO(), ssl.MemoryBIO()) for side in ("server", "client")}
    for side, protocol in (("server", ssl.PROTOCOL_TLS_SERVER), ("client", ssl.PROTOCOL_TLS_CLIENT)):
        context = ssl.SSLContext(protocol)
        context.load_verify_locations(files.authority)
        context.load_cert_chain(files.certificate, files.key)
        context.verify_mode = ssl.CERT_REQUIRED
        name = {"server_hostname": "127.0.0.1"} if side == "client" else {}
        ends[side] = context.wrap_bio(*buffers[side], server_side=side == "server", **name)
    for _ in range(4):
        for side, other in (("client", "server"), ("server", "client")):
            with contextlib.suppress(ssl.SSLWantReadError):
                ends[side].do_handshake()
            buffers[other][0].write(buffers[side][1].read())
    subjects = [
        dict(each[0] for each in ends[side].getpeercert()["subject"]) for side in ("server", "client")
    ]
    assert subjects == [{"commonName": "ada"}] * 2


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_keys(tmp_path, mask):
    before = os.umask(mask)
    try:
        credentials.create_authority(tmp_path / "new" / "keys", "demo")
        credentials.issue(tmp_path / "new" / "keys", "ada")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "keys").stat().st_mode) == 0o700
    found = modes(tmp_path / "new" / "keys")
    assert found == {
        "authority.pem": 0o644 & ~mask,
        "authority.key": 0o600,
        "ada.pem": 0o644 & ~mask,
        "ada.key": 0o600,
    }


def test_a_key_is_never_open_to_others_even_for_a_moment(folder, monkeypatch):
    opened = []
    plain = os.open

    def watched(path, flags, mode=0o777, **more):
        descriptor = plain(path, flags, mode, **more)
        if flags & os.O_CREAT:
            opened.append((str(path), flags & os.O_EXCL, stat.S_IMODE(os.fstat(descriptor).st_mode)))
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        credentials.issue(folder, "ada", clock=now)
    finally:
        os.umask(before)
    (key,) = [each for each in opened if ".ada.key." in each[0]]
    assert key[1:] == (os.O_EXCL, 0o600)


def test_nothing_is_overwritten(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"authority\.key exists already; remove it first"):
        credentials.create_authority(folder, "demo", clock=now)
    credentials.issue(folder, "ada", clock=now)
    with pytest.raises(InputError, match=r"ada\.key exists already; remove it first, or choose another name"):
        credentials.issue(folder, "ada", clock=now)
    (folder / "ada.key").unlink()
    kept = (folder / "ada.pem").read_bytes()
    with pytest.raises(InputError, match=r"ada\.pem exists already"):
        credentials.issue(folder, "ada", clock=now)
    assert (folder / "ada.pem").read_bytes() == kept
    assert set(modes(folder)) == {*before, "ada.pem"}, "a half of a pair, or a temporary file, was left"
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_what_breaks_off_leaves_nothing(folder, monkeypatch):
    before = set(modes(folder))
    plain = os.fsync
    calls = []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        credentials.issue(folder, "ada", clock=now)
    assert set(modes(folder)) == before


def test_a_certificate_does_not_outlive_its_authority(tmp_path):
    credentials.create_authority(tmp_path / "keys", "demo", days=10, clock=now)
    found = certificate(credentials.issue(tmp_path / "keys", "ada", days=365, clock=lambda: NOW + 5 * DAY))
    assert found.not_valid_after_utc == certificate(tmp_path / "keys" / "authority.pem").not_valid_after_utc
    with pytest.raises(InputError, match=r"authority\.pem expired on 2027-01-25 08:00 UTC; issue another"):
        credentials.issue(tmp_path / "keys", "bob", clock=lambda: NOW + 11 * DAY)
    with pytest.raises(InputError, match=r"authority\.pem is not valid before"):
        credentials.issue(tmp_path / "keys", "bob", clock=lambda: NOW - DAY)


@pytest.mark.parametrize(
    "name", ["", "Ada", "ada\n", "-ada", "a" * 64, "ada.org", "ada/../bob", "ä", "observer_1", "a b"]
)
def test_bad_names_are_refused(folder, name, tmp_path):
    for attempt in (
        lambda: credentials.issue(folder, name, clock=now),
        lambda: credentials.check(folder, name, clock=now),
        lambda: credentials.create_authority(tmp_path / "other", name),
    ):
        with pytest.raises(InputError, match="must have 1 to 63 lower-case letters, digits and hyphens"):
            attempt()
    assert not (tmp_path / "other").exists()


def test_good_names(folder):
    for name in ("a", "7", "observer-1", "robot-7-", "a" * 63):
        credentials.issue(folder, name, clock=now)
        credentials.check(folder, name, clock=now)
    with pytest.raises(InputError, match="name is 'authority', which is taken by the authority's own files"):
        credentials.issue(folder, "authority", clock=now)


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ((), "addresses is empty; give at least one"),
        (
            ("robot:7447",),
            "addresses has 'robot:7447'; each must be an IP address or a host name in lower case",
        ),
        (("[::1]",), "without a port"),
        (("*.example.org",), "host name"),
        (("Robot.example.org",), "host name in lower case"),
        (("127.1",), "host name"),
        (("-robot",), "host name"),
        (("",), "host name"),
        (("robot\n",), "host name"),
        (("0.0.0.0",), "which is no place; give the address at which others connect"),
        (("::",), "which is no place"),
    ],
)
def test_bad_addresses_are_refused(folder, addresses, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[").replace("*", r"\*")):
        credentials.issue(folder, "ada", addresses, clock=now)
    assert "ada.key" not in modes(folder)


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 36501])
def test_bad_lengths_of_time_are_refused(folder, days, tmp_path):
    with pytest.raises(InputError, match="days is"):
        credentials.issue(folder, "ada", days=days, clock=now)
    with pytest.raises(InputError, match="days is"):
        credentials.create_authority(tmp_path / "other", "demo", days=days)


def test_a_folder_must_be_the_owners_alone(folder, tmp_path):
    folder.chmod(0o750)
    with pytest.raises(InputError, match=r"others may look into .*keys \(its mode is 0750\); chmod 700"):
        credentials.issue(folder, "ada", clock=now)
    with pytest.raises(InputError, match="others may look into"):
        credentials.create_authority(folder, "again", clock=now)
    with pytest.raises(InputError, match="is no folder; create the authority first"):
        credentials.issue(tmp_path / "absent", "ada", clock=now)


def missing_authority(folder, other):
    (folder / "authority.pem").unlink()
    return "authority.pem is missing; copy it from where the authority was created"


def missing_certificate(folder, other):
    (folder / "ada.pem").unlink()
    return "ada.pem is missing; issue a certificate for ada"


def missing_key(folder, other):
    (folder / "ada.key").unlink()
    return "ada.key is missing; copy it from where the certificate was issued"


def open_key(folder, other):
    (folder / "ada.key").chmod(0o640)
    return "others may read .*ada.key .its mode is 0640.; chmod 600"


def writable_folder(folder, other):
    folder.chmod(0o770)
    return "others may write into .*keys .its mode is 0770.; chmod go-w"


def writable_authority(folder, other):
    (folder / "authority.pem").chmod(0o666)
    return "others may write into .*authority.pem .its mode is 0666.; chmod go-w"


def damaged_certificate(folder, other):
    (folder / "ada.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return "ada.pem holds no certificate"


def damaged_key(folder, other):
    (folder / "ada.key").write_text("mine")
    return "ada.key holds no private key"


def a_folder_as_certificate(folder, other):
    (folder / "ada.pem").unlink()
    (folder / "ada.pem").mkdir()
    return "ada.pem cannot be read .Is a directory."


def another_authority(folder, other):
    os.replace(other / "authority.pem", folder / "authority.pem")
    return "ada.pem is signed by another authority than .*authority.pem; all agents need certificates of one"


def another_name(folder, other):
    for ending in ("pem", "key"):
        os.replace(folder / f"bob.{ending}", folder / f"ada.{ending}")
    return "ada.pem is a certificate of 'bob'; issue one of 'ada', or start that one"


def another_key(folder, other):
    os.replace(folder / "bob.key", folder / "ada.key")
    return "ada.key is the key of another certificate"


@pytest.mark.parametrize(
    "spoil",
    [
        missing_authority,
        missing_certificate,
        missing_key,
        open_key,
        writable_folder,
        writable_authority,
        damaged_certificate,
        damaged_key,
        a_folder_as_certificate,
        another_authority,
        another_name,
        another_key,
    ],
)
def test_what_is_wrong_is_said(folder, tmp_path, spoil):
    credentials.issue(folder, "ada", clock=now)
    credentials.issue(folder, "bob", clock=now)
    credentials.create_authority(tmp_path / "other", "demo", clock=now)
    assert credentials.check(folder, "ada", clock=now) == (
        folder / "authority.pem",
        folder / "ada.pem",
        folder / "ada.key",
    )
    message = spoil(folder, tmp_path / "other")
    with pytest.raises(InputError, match=message) as error:
        credentials.check(folder, "ada", clock=now)
    assert "\n" not in str(error.value)


def test_the_time_of_a_certificate(folder):
    credentials.issue(folder, "ada", days=2, clock=now)
    credentials.check(folder, "ada", clock=lambda: NOW + 2 * DAY - 1)
    credentials.check(folder, "ada", clock=lambda: NOW - 3599)  # clocks differ
    with pytest.raises(
        InputError, match=r"ada\.pem expired on 2027-01-17 08:00 UTC; issue another certificate"
    ):
        credentials.check(folder, "ada", clock=lambda: NOW + 2 * DAY + 1)
    with pytest.raises(
        InputError, match=r"authority\.pem is not valid before 2027-01-15 07:00 UTC; set this machine's"
    ):
        credentials.check(folder, "ada", clock=lambda: NOW - 3601)
    credentials.issue(folder, "bob", clock=lambda: NOW + 30 * DAY)
    with pytest.raises(InputError, match=r"bob\.pem is not valid before"):
        credentials.check(folder, "bob", clock=lambda: NOW + 29 * DAY)


def test_an_agent_needs_no_key_of_the_authority(folder, tmp_path):
    credentials.issue(folder, "ada", clock=now)
    (folder / "authority.key").unlink()
    credentials.check(folder, "ada", clock=now)
    with pytest.raises(InputError, match=r"authority\.key is missing; it is where the authority was created"):
        credentials.issue(folder, "bob", clock=now)


def test_an_agent_is_no_authority(folder):
    credentials.issue(folder, "ada", clock=now)
    credentials.issue(folder, "bob", clock=now)
    for ending in ("pem", "key"):
        os.replace(folder / f"ada.{ending}", folder / f"authority.{ending}")
    with pytest.raises(
        InputError, match=r"authority\.pem is no authority's certificate; create the authority first"
    ):
        credentials.issue(folder, "eve", clock=now)
    with pytest.raises(InputError, match=r"authority\.pem is no authority's certificate"):
        credentials.check(folder, "bob", clock=now)


def test_the_authoritys_own_key_is_needed(folder):
    credentials.issue(folder, "ada", clock=now)
    os.replace(folder / "ada.key", folder / "authority.key")
    with pytest.raises(InputError, match=r"authority\.key is the key of another certificate"):
        credentials.issue(folder, "bob", clock=now)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for attempt in (
        lambda: credentials.create_authority(tmp_path / "keys", "demo"),
        lambda: credentials.issue(tmp_path / "keys", "ada"),
        lambda: credentials.check(tmp_path / "keys", "ada"),
    ):
        with pytest.raises(
            InputError, match=r"cryptography is not installed; pip install 'gossamer\[network\]'"
        ):
            attempt()
    assert not (tmp_path / "keys").exists()


def test_by_the_clock_of_this_machine(tmp_path):
    credentials.create_authority(tmp_path / "keys", "demo")
    found = certificate(credentials.issue(tmp_path / "keys", "ada", days=1))
    assert abs(found.not_valid_after_utc.timestamp() - time.time() - DAY) < 60
    credentials.check(tmp_path / "keys", "ada")
