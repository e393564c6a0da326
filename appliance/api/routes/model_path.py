"""Model path: paths that name a model, whose id has one part or two."""

from appliance.api.request import AnyRequest

NAMES = ("{name:str}", "{owner:str}/{name:str}")


def below(*paths: str) -> list[str]:
    """Return these paths below the base of each model of TEI's."""
    return [f"/tei/{name}{path}" for name in NAMES for path in paths]


def path_model(request: AnyRequest) -> str:
    """Return the model that the path names."""
    parts = request.path_params
    return "/".join(str(parts[name]) for name in ("owner", "name") if name in parts)
