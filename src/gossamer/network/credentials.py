"""An authority of one run, and the certificates by which its agents know each other.

A folder holds ``authority.pem`` and ``authority.key``, and ``NAME.pem`` and ``NAME.key`` of each agent. An agent's
machine needs the first and the last two only: who has ``authority.key`` can be anybody. Nothing here is sent anywhere.
"""

import ipaddress
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.errors import InputError, require_positive, require_within

OBSERVER = "observer-"
"""Names that begin so are of certificates with which one may look on, and do nothing else."""


class KeyFiles(NamedTuple):
    """What one agent needs."""

    authority: Path
    certificate: Path
    key: Path


def create_authority(
    folder: Path, run_name: str, days: float = 365.0, clock: Callable[[], float] = time.time
) -> Path:
    """Make ``authority.pem`` and ``authority.key`` in a folder, which is made too if it is missing.

    Args:
        folder: only its owner may look into it.
        run_name: lower-case letters, digits and hyphens, at most 63.
        days: how long it is valid, in (0, 36500].
        clock: seconds since 1970.

    Returns:
        The certificate's path.

    Raises:
        InputError: a bad name or length of time, a folder that is open to others, a file in the way, or no package
            ``cryptography``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> create_authority(folder, "demo").name, stat.filemode((folder / "authority.key").stat().st_mode)
        ('authority.pem', '-rw-------')
    """
    require_cryptography()
    require_name("run_name", run_name)
    begin, end = _validity(days, clock())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    _require_closed(folder)
    key = _new_key()
    subject = _subject(run_name)
    certificate = _sign(subject, key.public_key(), begin, end, subject, key, key.public_key(), None)
    return _save(folder, _AUTHORITY, certificate, key)


def issue(
    folder: Path,
    name: str,
    addresses: Sequence[str] = ("127.0.0.1", "localhost"),
    days: float = 365.0,
    clock: Callable[[], float] = time.time,
) -> Path:
    """Make ``NAME.pem`` and ``NAME.key``, signed by the authority in the same folder.

    Args:
        folder: where the authority is.
        name: an agent's name, or one beginning with ``observer-``: lower-case letters, digits and hyphens, at most 63.
        addresses: IP addresses and host names at which others reach it. A peer that connects anywhere else refuses it.
        days: how long it is valid, in (0, 36500]; never beyond the authority's own end.
        clock: seconds since 1970.

    Returns:
        The certificate's path.

    Raises:
        InputError: a bad name, address or length of time, no authority that is valid now, a folder that is open to
            others, a file in the way, or no package ``cryptography``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> path = create_authority(folder, "demo")
        >>> issue(folder, "ada", addresses=["192.0.2.7", "ada.example.org"]).name
        'ada.pem'
        >>> issue(folder, "Ada")
        Traceback (most recent call last):
        gossamer.errors.InputError: name is 'Ada'; it must have 1 to 63 lower-case letters, digits and hyphens, ...
    """
    require_cryptography()
    require_name("name", name)
    alternatives = [_alternative_name(address) for address in addresses]
    if not alternatives:
        raise InputError("addresses is empty; give at least one IP address or host name")
    now = clock()
    begin, end = _validity(days, now)
    _require_closed(folder)
    authority = _load_authority(folder / f"{_AUTHORITY}.pem", "create the authority first")
    authority_key = _load_key(folder / f"{_AUTHORITY}.key", "it is where the authority was created")
    _require_valid_now(authority, f"{folder / _AUTHORITY}.pem", now)
    _require_key_of(authority, authority_key, folder / f"{_AUTHORITY}.key")
    # Who verifies a chain looks at no date of the authority itself: what it signs must not outlive it.
    end = min(end, authority.not_valid_after_utc)
    key = _new_key()
    issuer, issuer_public = authority.subject, authority.public_key()
    certificate = _sign(
        _subject(name), key.public_key(), begin, end, issuer, authority_key, issuer_public, alternatives
    )
    return _save(folder, name, certificate, key)


def check(folder: Path, name: str, clock: Callable[[], float] = time.time) -> KeyFiles:
    """The files of one agent, if they are all there and fit together; ``authority.key`` is not asked for.

    Args:
        folder: only its owner may write there.
        name: the name that the certificate must be of.
        clock: seconds since 1970.

    Raises:
        InputError: it says what is wrong: a file that is missing or damaged, a key that others can read, a certificate
            that has expired, is not valid yet, is signed by another authority or has another name, a key of another
            certificate, or no package ``cryptography``.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> path = create_authority(folder, "demo"), issue(folder, "ada", days=2)
        >>> [path.name for path in check(folder, "ada")]
        ['authority.pem', 'ada.pem', 'ada.key']
        >>> check(folder, "ada", clock=lambda: time.time() + 3 * 86400)
        Traceback (most recent call last):
        gossamer.errors.InputError: .../ada.pem expired on ...; issue another certificate
    """
    require_cryptography()
    require_name("name", name)
    files = KeyFiles(folder / f"{_AUTHORITY}.pem", folder / f"{name}.pem", folder / f"{name}.key")
    authority = _load_authority(files.authority, "copy it from where the authority was created")
    certificate = _load_certificate(files.certificate, f"issue a certificate for {name}")
    key = _load_key(files.key, "copy it from where the certificate was issued")
    # Anyone who can replace the authority's certificate decides who is trusted.
    for path in (folder, files.authority, files.certificate):
        _require_mode(path, 0o022, "others may write into", f"chmod go-w {path}")
    found = _name_of(certificate)
    if found != name:
        raise InputError(
            f"{files.certificate} is a certificate of {found!r}; issue one of {name!r}, or start that one"
        )
    if not _is_signed_by(certificate, authority):
        raise InputError(
            f"{files.certificate} is signed by another authority than {files.authority}; "
            "all agents need certificates of one"
        )
    _require_valid_now(authority, files.authority, clock())
    _require_valid_now(certificate, files.certificate, clock())
    _require_key_of(certificate, key, files.key)
    return files


def require_name(what: str, name: str) -> None:
    """Refuse what is no name of an agent, observer or run.

    A name has no dot, and so it is never the name of a certificate that a public authority signs: those are domains.

    Raises:
        InputError: it has other characters than lower-case letters, digits and hyphens, begins with a hyphen, is empty,
            longer than 63, or ``authority``.

    Example:
        >>> require_name("name", "agent-7")
        >>> require_name("name", "authority")
        Traceback (most recent call last):
        gossamer.errors.InputError: name is 'authority', which is taken by the authority's own files; choose another
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{what} is {name!r}; it must have 1 to 63 lower-case letters, digits and hyphens, and begin with no hyphen"
        )
    if name == _AUTHORITY:
        raise InputError(f"{what} is {name!r}, which is taken by the authority's own files; choose another")


_AUTHORITY = "authority"
_NAME = re.compile("[a-z0-9][a-z0-9-]{0,62}")
_HOST = re.compile(r"(?!.{254})([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_EARLIER = timedelta(
    hours=1
)  # clocks of machines differ: one that is behind must not refuse what was just issued


def require_cryptography() -> None:
    """Refuse to continue without the package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise InputError(
            "the package cryptography is not installed; pip install 'gossamer[network]'"
        ) from error


def _validity(days: float, now: float) -> tuple[datetime, datetime]:
    require_positive("days", days)
    require_within("days", days, 0, 36500)
    begin = datetime.fromtimestamp(math.floor(now), UTC)  # certificates know whole seconds
    return begin - _EARLIER, begin + timedelta(days=days)


def _alternative_name(address: str) -> Any:
    from cryptography import x509

    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        if not _HOST.fullmatch(address) or address.rpartition(".")[2].isdecimal():
            raise InputError(
                f"addresses has {address!r}; each must be an IP address or a host name in lower case, without a port"
            ) from None
        return x509.DNSName(address)
    if number.is_unspecified:
        raise InputError(
            f"addresses has {address!r}, which is no place; give the address at which others connect"
        )
    return x509.IPAddress(number)


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _subject(name: str) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _sign(
    subject: Any,
    public_key: Any,
    begin: datetime,
    end: datetime,
    issuer: Any,
    issuer_key: Any,
    issuer_public: Any,
    alternatives: Sequence[Any] | None,
) -> Any:
    """A certificate of an agent, or of an authority where there are no alternative names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    is_authority = alternatives is None
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number(), begin, end)
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False)
    )
    if alternatives is not None:
        both = [
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ]  # a peer is either, by turns
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _save(folder: Path, name: str, certificate: Any, key: Any) -> Path:
    """Both files whole, or neither; the certificate last: where it is, the key is too."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key_path, certificate_path = folder / f"{name}.key", folder / f"{name}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    contents: Mapping[Path, tuple[bytes, int]] = {
        key_path: (private, 0o600),
        certificate_path: (certificate.public_bytes(Encoding.PEM), 0o644),
    }
    temporary: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path, (content, mode) in contents.items():
            temporary[path] = folder / f".{path.name}.{secrets.token_hex(8)}"
            _write(temporary[path], content, mode)
        for path, written in temporary.items():
            try:
                os.link(written, path)  # a rename would overwrite
            except FileExistsError:
                raise InputError(f"{path} exists already; remove it first, or choose another name") from None
            placed.append(path)
    except BaseException as error:
        for path in placed:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(folder, error) from error
        raise
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)
    return certificate_path


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder} cannot be written ({error.strerror}); make it writable, or give another folder"
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    # The mode is right from the first moment: after a chmod it may be too late.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _load_authority(path: Path, advice: str) -> Any:
    from cryptography import x509

    certificate = _load_certificate(path, advice)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        constraints = None
    # Who verifies a chain does not look at this: it takes what it is given for an authority.
    if constraints is None or not constraints.ca:
        raise InputError(f"{path} is no authority's certificate; {advice}")
    return certificate


def _load_certificate(path: Path, advice: str) -> Any:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(_read(path, advice))
    except ValueError as error:
        raise InputError(f"{path} holds no certificate ({error}); {advice}") from error


def _load_key(path: Path, advice: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path, advice)
    _require_mode(path, 0o077, "others may read", f"chmod 600 {path}")
    try:
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds no private key ({error}); {advice}") from error


def _read(path: Path, advice: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {advice}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {advice}") from error


def _require_closed(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; create the authority first")
    _require_mode(folder, 0o077, "others may look into", f"chmod 700 {folder}")


def _require_mode(path: Path, forbidden: int, complaint: str, advice: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & forbidden:
        raise InputError(f"{complaint} {path} (its mode is {mode:04o}); {advice}")


def _name_of(certificate: Any) -> str | None:
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return names[0].value if names else None


def _is_signed_by(certificate: Any, authority: Any) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _require_valid_now(certificate: Any, path: Path | str, now: float) -> None:
    moment = datetime.fromtimestamp(now, UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if moment > end:
        raise InputError(f"{path} expired on {end:%Y-%m-%d %H:%M} UTC; issue another certificate")
    if moment < begin:
        raise InputError(
            f"{path} is not valid before {begin:%Y-%m-%d %H:%M} UTC; set this machine's clock, or wait"
        )


def _require_key_of(certificate: Any, key: Any, path: Path) -> None:
    if key.public_key() != certificate.public_key():
        raise InputError(f"{path} is the key of another certificate; copy both from where they were issued")
