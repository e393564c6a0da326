import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from appliance import local_ca
from appliance.admin import doctor
from appliance.core.errors import InvalidSettings
from appliance.local_ca import DAYS, RENEW_DAYS, LocalCa, own_names
from appliance.settings import Settings, TlsSettings
from appliance.store.datadir import DataDir

NOW = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path):
    return LocalCa(tmp_path / "tls")


def verified(authority, name, now=NOW):
    """Whether a client that trusts the authority accepts the server's certificate for a name."""
    from cryptography.x509 import verification

    store = verification.Store([x509.load_pem_x509_certificate(authority.ca.read_bytes())])
    leaf, *rest = x509.load_pem_x509_certificates(authority.cert.read_bytes())
    try:
        subject = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    builder = verification.PolicyBuilder().store(store).time(now)
    try:
        builder.build_server_verifier(subject).verify(leaf, rest)
    except verification.VerificationError:
        return False
    return True


def test_a_certificate_is_trusted_for_its_names_by_whoever_trusts_the_authority(authority):
    assert authority.make(["192.168.1.7", "box", "box.local"], NOW)
    assert verified(authority, "192.168.1.7")
    assert verified(authority, "box.local")
    assert not verified(authority, "192.168.1.8")
    assert not verified(authority, "example.org")
    ssl.create_default_context(cafile=authority.ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.cert, authority.key)


def accepted(authority, certificate, key, name):
    """Whether OpenSSL, as a client that trusts the authority, ends its handshake for a name."""
    client = ssl.create_default_context(cafile=authority.ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(here, there, server_hostname=name)
    server = context.wrap_bio(there, here, server_side=True)
    for _ in range(4):
        for side in (asks, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def test_openssl_as_a_client_accepts_it_and_not_for_a_name_that_the_authority_may_not_vouch_for(
    authority, tmp_path
):
    now = datetime.now(UTC)
    authority.make(["192.168.1.7", "box.local"], now)
    assert accepted(authority, authority.cert, authority.key, "box.local")
    assert accepted(authority, authority.cert, authority.key, "192.168.1.7")
    assert not accepted(authority, authority.cert, authority.key, "other.local")
    # Whoever stole the authority's key.
    pair = authority._authority(now)
    for name in (x509.DNSName("bank.example"), x509.IPAddress(ipaddress.ip_address("8.8.8.8"))):
        made = local_ca._leaf([name], authority._server_key(), pair, now)
        stolen = tmp_path / "stolen.pem"
        stolen.write_bytes(local_ca._pem(made) + authority.ca.read_bytes())
        assert not accepted(authority, stolen, authority.key, str(name.value))


def test_the_authority_can_vouch_for_this_hosts_names_and_private_addresses_alone(authority):
    authority.make(["192.168.1.7", "box.example.org"], NOW)
    ca = x509.load_pem_x509_certificate(authority.ca.read_bytes())
    found = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    permitted = {str(each.value) for each in found.value.permitted_subtrees}
    assert {"10.0.0.0/8", "192.168.0.0/16", "box.example.org", "local"} <= permitted
    assert "0.0.0.0/0" not in permitted
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_keys_are_their_owners_alone(authority):
    authority.make(["box"], NOW)
    for name in ("ca-key.pem", "key.pem"):
        path = authority.ca.with_name(name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")  # PKCS#8
    assert stat.S_IMODE(authority.ca.parent.stat().st_mode) == 0o700


def test_the_authority_stays_for_names_that_it_may_vouch_for_and_is_new_for_others(authority):
    assert authority.make(["box"], NOW)
    before = authority.ca.read_bytes()
    assert not authority.make(["box", "10.1.2.3", "other.local"], NOW)
    assert authority.ca.read_bytes() == before
    assert authority.make(["box.example.org"], NOW)
    assert authority.ca.read_bytes() != before


@pytest.mark.parametrize("name", ["", "a b", "a..b", "-" * 64, "münchen", "a/b", "x" * 64])
def test_what_is_no_name_is_refused(authority, name):
    with pytest.raises(InvalidSettings):
        authority.make([name], NOW)
    assert not authority.cert.exists()


def test_a_certificate_is_renewed_in_its_last_days_or_when_the_address_changed_and_not_else(
    authority,
):
    authority.make(["box", "10.0.0.1"], NOW)
    key, cert, ca = (path.read_bytes() for path in (authority.key, authority.cert, authority.ca))
    assert not authority.renew_if_due(["10.0.0.1"], NOW + timedelta(days=DAYS - RENEW_DAYS - 1))
    assert authority.cert.read_bytes() == cert
    late = NOW + timedelta(days=DAYS - RENEW_DAYS + 1)
    assert authority.renew_if_due(["10.0.0.1"], late)
    assert verified(authority, "box", late)
    assert authority.show(authority.cert, late).days_left == DAYS
    assert authority.renew_if_due(["10.0.0.2"], late)
    assert verified(authority, "10.0.0.1", late)
    assert verified(authority, "10.0.0.2", late)
    assert (authority.key.read_bytes(), authority.ca.read_bytes()) == (key, ca)


def test_a_public_address_or_a_certificate_of_somebody_else_is_left_as_it_is(authority, tmp_path):
    authority.make(["box"], NOW)
    before = authority.cert.read_bytes()
    assert not authority.renew_if_due(["203.0.113.7"], NOW)
    other = LocalCa(tmp_path / "other")
    other.make(["box"], NOW)
    authority.cert.write_bytes(other.cert.read_bytes())
    assert not authority.show(authority.cert, NOW).is_ours
    assert not authority.renew_if_due(["10.0.0.1"], NOW + timedelta(days=DAYS))
    assert authority.cert.read_bytes() == other.cert.read_bytes() != before


def test_an_authority_that_would_end_first_signs_nothing_more(authority):
    authority.make(["box"], NOW - timedelta(days=3_600))
    assert not authority.renew_if_due(["box"], NOW)
    assert authority.make(["box"], NOW)


def test_fingerprints_are_those_that_clients_show(authority):
    authority.make(["box"], NOW)
    [der, _] = authority.cert.read_text().split("-----END CERTIFICATE-----\n")[:2]
    import hashlib

    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(der + "-----END CERTIFICATE-----\n"))
    assert authority.show(authority.cert, NOW).fingerprint.replace(":", "") == (
        digest.hexdigest().upper()
    )
    assert authority.show(authority.ca.with_name("none.pem"), NOW) is None
    assert authority.show(authority.key, NOW) is None


def test_this_machine_has_names_that_a_certificate_can_hold(authority):
    names = own_names()
    assert {"127.0.0.1", "localhost"} <= set(names)
    authority.make(names, NOW)
    assert verified(authority, "127.0.0.1")


@pytest.mark.parametrize(
    ("days", "status"), [(0, "ok"), (DAYS - RENEW_DAYS + 1, "warn"), (DAYS + 1, "fail")]
)
def test_the_doctor_warns_a_month_before_a_certificate_ends(tmp_path, days, status):
    directory = DataDir(tmp_path)
    authority = LocalCa(directory.tls)
    authority.make(["box"], NOW)
    settings = Settings(tls=TlsSettings(str(authority.cert), str(authority.key)))
    now_us = int((NOW + timedelta(days=days)).timestamp() * 1e6)
    found = doctor.certificate(directory, settings, now_us)
    assert found.status == status
    assert status == "fail" or authority.show(authority.cert, NOW).fingerprint in found.said
    missing = Settings(tls=TlsSettings(str(tmp_path / "none.pem"), "k"))
    assert doctor.certificate(directory, missing, now_us).status == "fail"
