"""Page: the door through which every page for people leaves.

Owns what all pages have: who is sent one, the security headers with a new nonce, the address that
the reader knows this server by, and gzip.
"""

import gzip
from functools import cache
from typing import Any

from litestar import Response
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig

from appliance.api.clients import Clients
from appliance.api.error_responses import VALID_PATHS
from appliance.api.request import AnyRequest
from appliance.core.errors import UnknownPath
from appliance.core.version import program_version
from appliance.pages.accept import prefers_page, takes_gzip
from appliance.pages.assets import Asset, Assets
from appliance.pages.policy import file_headers, new_nonce, page_headers
from appliance.pages.templates import environment

HTML = "text/html"
GZIP_LEVEL = 5
"""Two milliseconds for a page of 100 kB; higher levels save a hundredth."""


@cache
def assets() -> Assets:
    """Return the files of all pages."""
    return Assets()


def template_config() -> "TemplateConfig[JinjaTemplateEngine]":
    """Return what Litestar renders pages with."""
    return TemplateConfig(instance=JinjaTemplateEngine.from_environment(environment(assets())))


def is_wanted(request: AnyRequest) -> bool:
    """Say whether a request would rather have a page than anything else."""
    return prefers_page(",".join(request.headers.getall("accept", [])))


def require_wanted(request: AnyRequest) -> None:
    """Refuse programs at a path that has nothing but a page, as at one that has nothing.

    Raises:
        UnknownPath: as said.
    """
    if not is_wanted(request):
        raise UnknownPath(path=request.scope["path"][:200], valid=VALID_PATHS)


def address_of(request: AnyRequest, clients: Clients) -> str:
    """Return this server's address as the request spells it: `https://models.example:8642`."""
    host = request.headers.get("host")
    if not host:  # HTTP/1.0 needs none
        name, port = request.scope["server"] or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    return f"{clients.scheme(request)}://{host}"


def answer_page(
    request: AnyRequest,
    clients: Clients,
    template: str,
    *,
    writes_html: bool = False,
    **context: Any,
) -> Response[bytes]:
    """Return a rendered page; `writes_html` as for `page_headers`."""
    engine = request.app.template_engine
    assert engine is not None
    nonce, url = new_nonce(), address_of(request, clients)
    content = (
        engine.get_template(template)
        .render(
            nonce=nonce,
            url=url,
            secure=url.startswith("https:"),
            here=request.scope["path"],
            version=program_version(),
            has_admin=clients.is_local(request),
            **context,
        )
        .encode()
    )
    headers = page_headers(nonce, writes_html=writes_html) | {"vary": "accept, accept-encoding"}
    if accepts_gzip(request):
        headers["content-encoding"] = "gzip"
        content = gzip.compress(content, compresslevel=GZIP_LEVEL, mtime=0)
    return Response(content, status_code=200, media_type=HTML, headers=headers)


def answer_asset(request: AnyRequest, asset: Asset) -> Response[bytes]:
    """Return a file that pages load."""
    headers = file_headers() | {"vary": "accept-encoding"}
    content = asset.content
    if accepts_gzip(request):
        headers["content-encoding"] = "gzip"
        content = asset.packed
    return Response(content, status_code=200, media_type=asset.media_type, headers=headers)


def accepts_gzip(request: AnyRequest) -> bool:
    """Say whether an answer may be packed."""
    return takes_gzip(",".join(request.headers.getall("accept-encoding", [])))
