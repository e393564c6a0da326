"""Services: what the routes work with.

Litestar injects this one object into every route.
"""

from dataclasses import dataclass

from appliance.admin.operator_api import OperatorApi
from appliance.api.auth import Authenticator
from appliance.api.events import Events
from appliance.api.paid import PaidCalls
from appliance.core.clock import Clock
from appliance.core.limits import Limits
from appliance.ledger.ledger import Ledger
from appliance.observe.log_buffer import LogBuffer
from appliance.observe.meters import Meters
from appliance.observe.metrics import Metrics
from appliance.pipeline import Pipeline
from appliance.scheduler.residency import Residency
from appliance.token_inputs import TokenInputs
from appliance.tokenizing import Tokenizing


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one server that routes may use."""

    admin: OperatorApi
    paid: PaidCalls
    pipeline: Pipeline
    residency: Residency
    authenticator: Authenticator
    ledger: Ledger
    clock: Clock
    limits: Limits
    meters: Meters
    metrics: Metrics
    log_buffer: LogBuffer
    events: Events
    tokenizing: Tokenizing
    token_inputs: TokenInputs
