"""Local CA: the data directory's own certificate authority, and the server's certificate from it.

Owns `tls/`: `ca.pem` (what teammates trust), `ca-key.pem`, `cert.pem` and `key.pem` (what the
server uses). The authority can vouch for this host's names and for private addresses alone, so
that trusting it says nothing about the rest of the web.
"""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.core.errors import InvalidSettings
from appliance.store.datadir import write_private

CA_DAYS = 3_650
DAYS = 397
"""Of a server's certificate; it is renewed at a start of the server."""
RENEW_DAYS = 30
"""Before the end from which a certificate is renewed, or warned of."""
SKEW = timedelta(hours=1)
"""How far a teammate's clock may be behind ours."""
NAMES_MAX = 50
PRIVATE = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
)
LOCAL_DOMAINS = ("localhost", "local", "internal", "home.arpa")
"""Domains that nobody can own, with all names below them."""
ELSEWHERE = ("192.0.2.1", 9)
"""A documentation address: asking the way to it sends nothing."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class CertificateView:
    """What is shown of a certificate."""

    path: str
    fingerprint: str
    """SHA-256 of the certificate, in pairs of hexadecimal digits."""
    names: tuple[str, ...]
    expires: str
    days_left: int
    is_ours: bool
    """Whether this data directory's authority made it."""


class LocalCa:
    """The certificates of one data directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca, self._ca_key = folder / "ca.pem", folder / "ca-key.pem"
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"

    def make(self, names: Iterable[str], now: datetime) -> bool:
        """Make a certificate for the names, and an authority if there is none that may.

        Names are DNS names or IP addresses. Returns whether the authority is new, which teammates
        must then trust anew.

        Raises:
            InvalidSettings: a name is none.
            OSError: the files cannot be written.
        """
        wanted = [_general_name(name) for name in dict.fromkeys(names)]
        if not 0 < len(wanted) <= NAMES_MAX:
            raise InvalidSettings("tls", "names", f"a certificate has 1 to {NAMES_MAX} names")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = self._authority(now)
        is_new = authority is None or not _allows(authority[0], wanted)
        if authority is None or is_new:
            authority = self._new_authority(wanted, now)
        made = _leaf(wanted, self._server_key(), authority, now)
        write_private(self.cert, _pem(made) + _pem(authority[0]))
        return is_new

    def _server_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the server's key, made on first use.

        It stays when the certificate is renewed, so that one file is replaced, in one step.
        """
        with suppress(OSError, ValueError):
            found = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
            if isinstance(found, ec.EllipticCurvePrivateKey):
                return found
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(self.key, _private_pem(key))
        return key

    def renew_if_due(self, addresses: Sequence[str], now: datetime) -> bool:
        """Make the certificate anew if ours ends soon or lacks an address; say if it was done.

        The authority stays, so that nobody has to trust anything anew; nothing is done when it
        does not.

        Raises:
            OSError: the files cannot be written.
        """
        found = self.show(self.cert, now)
        authority = self._authority(now)
        if found is None or authority is None or not found.is_ours:
            return False
        names = list(dict.fromkeys((*found.names, *addresses)))
        is_due = found.days_left < RENEW_DAYS or set(names) != set(found.names)
        if not is_due or len(names) > NAMES_MAX:
            return False
        if not _allows(authority[0], [_general_name(name) for name in names]):
            if found.days_left >= RENEW_DAYS:
                return False
            names = list(found.names)
        self.make(names, now)
        return True

    def show(self, path: Path, now: datetime) -> CertificateView | None:
        """Return what a PEM file's first certificate says; None: it holds none."""
        try:
            certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        except (OSError, ValueError):
            return None
        return CertificateView(
            path=str(path),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
            names=tuple(_names_of(certificate)),
            expires=certificate.not_valid_after_utc.strftime("%Y-%m-%d"),
            days_left=(certificate.not_valid_after_utc - now).days,
            is_ours=self._made(certificate),
        )

    def _made(self, certificate: x509.Certificate) -> bool:
        with suppress(OSError, ValueError, TypeError, InvalidSignature):
            authority = x509.load_pem_x509_certificate(self.ca.read_bytes())
            certificate.verify_directly_issued_by(authority)
            return True
        return False

    def _authority(
        self, now: datetime
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
        """Return the authority; None: there is none that outlives a new certificate."""
        try:
            certificate = x509.load_pem_x509_certificate(self.ca.read_bytes())
            key = serialization.load_pem_private_key(self._ca_key.read_bytes(), password=None)
        except (OSError, ValueError):
            return None
        is_pair = (
            isinstance(key, ec.EllipticCurvePrivateKey)
            and key.public_key() == certificate.public_key()
        )
        if not is_pair or certificate.not_valid_after_utc < now + timedelta(days=DAYS):
            return None
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return certificate, key

    def _new_authority(
        self, names: Sequence[x509.GeneralName], now: datetime
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"gigarouter of {socket.gethostname()}"[:64])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.NameConstraints(_permitted(names), None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        write_private(self._ca_key, _private_pem(key))
        write_private(self.ca, _pem(made))
        return made, key


def _leaf(
    names: Sequence[x509.GeneralName],
    key: ec.EllipticCurvePrivateKey,
    authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    now: datetime,
) -> x509.Certificate:
    issuer, issuer_key = authority
    return (
        x509.CertificateBuilder()
        .subject_name(_name("gigarouter"))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )


def own_address() -> str:
    """Return this machine's address on the network, or loopback if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(ELSEWHERE)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def own_names() -> list[str]:
    """Return what a certificate of this machine is for: its name and its addresses."""
    names = [own_address(), "127.0.0.1", "::1", "localhost"]
    host = socket.gethostname().rstrip(".").lower()
    with suppress(InvalidSettings):  # a host may be called what no certificate can name
        _general_name(host)
        names += [host] if "." in host else [host, f"{host}.local"]
    return list(dict.fromkeys(names))


def now_utc(wall_us: int) -> datetime:
    """Return a moment as certificates write it."""
    return datetime.fromtimestamp(wall_us // 1_000_000, UTC)


def _general_name(name: str) -> x509.GeneralName:
    """Return a name as it stands in a certificate.

    Raises:
        InvalidSettings: it is neither an IP address nor a DNS name.
    """
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    labels = name.removeprefix("*.").split(".")
    is_dns = name.isascii() and all(
        0 < len(each) <= 63  # noqa: PLR2004 - RFC 1035
        and each.replace("-", "").replace("_", "").isalnum()
        for each in labels
    )
    if not is_dns:
        raise InvalidSettings("tls", "names", f"{name!r} is neither an address nor a DNS name")
    return x509.DNSName(name.lower())


def _permitted(names: Sequence[x509.GeneralName]) -> list[x509.GeneralName]:
    """Return what an authority for these names may vouch for."""
    networks = [ipaddress.ip_network(each) for each in PRIVATE]
    public = [
        ipaddress.ip_network(each.value)
        for each in names
        if isinstance(each, x509.IPAddress) and not _is_within(each.value, networks)
    ]
    domains = [
        each.value.removeprefix("*.")
        for each in names
        if isinstance(each, x509.DNSName) and not _is_below(each.value, LOCAL_DOMAINS)
    ]
    return [
        *(x509.DNSName(each) for each in dict.fromkeys((*LOCAL_DOMAINS, *domains))),
        *(x509.IPAddress(each) for each in (*networks, *public)),
    ]


def _allows(authority: x509.Certificate, names: Sequence[x509.GeneralName]) -> bool:
    try:
        found = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return False
    permitted = found.permitted_subtrees or []
    networks = [each.value for each in permitted if isinstance(each, x509.IPAddress)]
    domains = [each.value for each in permitted if isinstance(each, x509.DNSName)]
    return all(
        _is_within(each.value, networks)
        if isinstance(each, x509.IPAddress)
        else _is_below(str(each.value), domains)
        for each in names
    )


def _is_within(address: object, networks: Iterable[object]) -> bool:
    return any(
        isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)
        and isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
        and address in network
        for network in networks
    )


def _is_below(name: str, domains: Iterable[str]) -> bool:
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)


def _names_of(certificate: x509.Certificate) -> list[str]:
    with suppress(x509.ExtensionNotFound, ValueError):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [
            str(each.value) for each in found if isinstance(each, x509.DNSName | x509.IPAddress)
        ]
    return []


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
