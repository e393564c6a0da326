"""OperatorApi trials: `/admin/v1/trials`: how far the trial of a model's file is."""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from appliance.api.routes.public import answer
from appliance.api.services import Services


@get("/trials/{model_id:path}")
async def watch_trial(
    model_id: FromPath[str], services: NamedDependency[Services]
) -> Response[bytes]:
    """Show the trial of a model's file that waits or runs now."""
    return answer(await services.admin.trials.running(model_id.lstrip("/")))
