"""LAN: whether a server may be reached from other machines.

Owns the rule that this is always somebody's decision: an address alone opens nothing; and that the
certificate it is reached with is looked at when a server starts.
"""

import logging
from pathlib import Path

from appliance.core.address import ANY, is_loopback
from appliance.core.clock import Clock
from appliance.core.errors import InvalidSettings
from appliance.settings import Settings
from appliance.store.datadir import DataDir

log = logging.getLogger("gigarouter.serve")


def require_deliberate(settings: Settings, *, has_key: bool | None = None) -> None:
    """Refuse an address beyond loopback that was not opened on purpose; warn if it has no TLS.

    `has_key`: a live key exists; None: it is not known yet, and the rest is judged, before anything
    is opened.

    Raises:
        InvalidSettings: names everything that is missing.
    """
    if is_loopback(settings.host):
        return
    wanted = []
    if not settings.lan:
        wanted.append("--lan (lan = true)")
    if not settings.tls.cert and not settings.insecure_http:
        wanted.append(
            "a certificate (gigarouter tls make), or --insecure-http (insecure_http = true: keys "
            "and texts then travel readable)"
        )
    if has_key is False:
        wanted.append("a key (mint a key first: gigarouter keys mint NAME)")
    elif wanted and has_key is None:
        wanted.append("a key, if there is none (gigarouter keys mint NAME)")
    if wanted:
        reason = f"{settings.host} is open to the network; that takes {'; and '.join(wanted)}"
        raise InvalidSettings("settings", "host", reason)
    if has_key and not settings.tls.cert:
        log.warning(
            "%s is open to the network without TLS: anyone on the way can read keys and texts",
            settings.host,
        )


def check_certificate(directory: DataDir, settings: Settings, clock: Clock) -> None:
    """Renew the certificate if it is this data directory's own and ends soon; warn otherwise."""
    if not settings.tls.cert:
        return
    # Imported late: the library takes a moment, and most servers have no certificate.
    from appliance.local_ca import RENEW_DAYS, LocalCa, now_utc, own_address  # noqa: PLC0415

    authority, now = LocalCa(directory.tls), now_utc(clock.wall_us())
    path = Path(settings.tls.cert)
    if path.absolute() == authority.cert.absolute():
        address = own_address() if settings.host in ANY else settings.host
        try:
            if authority.renew_if_due([address], now):
                log.info("the certificate %s was renewed", path)
        except OSError as error:
            log.warning("the certificate %s could not be renewed: %s", path, error)
    found = authority.show(path, now)
    if found is not None and found.days_left < RENEW_DAYS:
        log.warning("the certificate %s ends on %s", path, found.expires)
