"""Services: what the routes work with.

Owns nothing; it is the one thing that Litestar injects. Deliberately has no behaviour.
"""

from dataclasses import dataclass

from appliance.admin.desk import Admin
from appliance.api.auth import Authenticator
from appliance.api.events import Events
from appliance.api.paid import PaidCalls
from appliance.core.clock import Clock
from appliance.core.limits import Limits
from appliance.ledger.ledger import Ledger
from appliance.observe.journal import Journal
from appliance.observe.meters import Meters
from appliance.pipeline import Pipeline
from appliance.scheduler.residency import Residency


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one server that routes may use."""

    admin: Admin
    paid: PaidCalls
    pipeline: Pipeline
    residency: Residency
    authenticator: Authenticator
    ledger: Ledger
    clock: Clock
    limits: Limits
    meters: Meters
    journal: Journal
    events: Events
