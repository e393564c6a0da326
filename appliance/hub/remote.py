"""Remote: look up and read files of repositories on the hub.

The only module that imports huggingface_hub and makes requests to the hub. The commit and digest of
a file are known before any of its content is read. The token is sent to the hub only, never to a
host that it redirects to.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

from appliance import settings
from appliance.core.errors import DownloadFailed
from appliance.hub import connection
from appliance.settings import HubSettings

TIMEOUT_S = 20.0
"""Longest wait for a connection, and between two chunks of a body."""
ASK_S = 5.0
"""Longest wait for the word that the hub is there."""
REDIRECTS_MAX = 5
FILES_MAX = 10_000
"""Files of one repository that are listed."""
_SHA256 = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_GIT = re.compile(r"[0-9a-f]{40}\Z", re.ASCII)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)", re.ASCII)


class Interrupted(DownloadFailed):
    """The connection broke or the hub is busy: another attempt can succeed."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        """Seconds of the hub's Retry-After; 0.0 without one."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository at one commit."""

    repo: str
    path: str
    revision: str
    """The commit's hash, 40 hexadecimal digits."""
    bytes: int
    digest: str
    """Hexadecimal."""
    kind: Literal["sha256", "git"]
    """`sha256` of the content (large files), or `git`: the SHA-1 of the git blob."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a response that is being received."""

    chunks: Iterator[bytes]
    offset: int
    """Position of the first chunk in the file; 0 if the hub ignored the requested range."""


class Hub:
    """A client of the hub or of a mirror of it."""

    def __init__(self, settings: HubSettings) -> None:
        self._endpoint = settings.endpoint.rstrip("/")
        self._token = settings.token
        self._offline = settings.offline

    def __repr__(self) -> str:
        """Return the endpoint, without the token."""
        return f"<Hub {self._endpoint}{' | offline' if self._offline else ''}>"

    def find(self, repo: str, path: str, revision: str | None) -> RemoteFile:
        """Return a file's size and digest at a commit; None: at the newest commit.

        Raises:
            DownloadFailed: there is no such file, or access is refused; the message says why.
            Interrupted: the hub cannot be reached now.
        """
        with self._speaking(f"{repo}/{path}"):
            from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - late

            url = hf_hub_url(repo, path, revision=revision, endpoint=self._endpoint)
            found = get_hf_file_metadata(
                url, token=self._authorization(), timeout=TIMEOUT_S, endpoint=self._endpoint
            )
        digest = (found.etag or "").lower()
        if found.size is None or found.commit_hash is None:
            raise DownloadFailed(f"{repo}/{path}: the hub says neither its size nor its commit")
        if _SHA256.match(digest):
            return RemoteFile(repo, path, found.commit_hash, found.size, digest, "sha256")
        if _GIT.match(digest):
            return RemoteFile(repo, path, found.commit_hash, found.size, digest, "git")
        raise DownloadFailed(f"{repo}/{path}: the hub names no digest of it")

    def files(self, repo: str, revision: str | None) -> list[str]:
        """Return the paths of a repository's files, at most `FILES_MAX`.

        Raises:
            DownloadFailed: there is no such repository, or access is refused.
            Interrupted: the hub cannot be reached now.
        """
        with self._speaking(repo):
            from huggingface_hub import HfApi  # noqa: PLC0415 - late

            api = HfApi(endpoint=self._endpoint, token=self._authorization())
            found = api.model_info(repo, revision=revision, timeout=TIMEOUT_S)
        return [sibling.rfilename for sibling in (found.siblings or [])[:FILES_MAX]]

    def ask(self) -> None:
        """Ask the hub for nothing, to learn whether it answers.

        Raises:
            DownloadFailed: it does not, or offline is set; the message says where and what to do.
        """
        with self._speaking("the hub was asked whether it answers"):
            import httpx2  # noqa: PLC0415 - late

            answer = httpx2.head(self._endpoint, timeout=ASK_S, follow_redirects=False)
        if answer.status_code >= 500:  # noqa: PLR2004 - its own fault; others are an answer
            raise DownloadFailed(
                f"the hub at {connection.without_secrets(self._endpoint)} answers "
                f"{answer.status_code}: try again later"
            )

    @contextmanager
    def open(self, file: RemoteFile, offset: int, end: int | None = None) -> Iterator[Body]:
        """Yield a file's bytes from `offset` to its end, or to `end` (exclusive).

        Raises:
            DownloadFailed: the hub refuses the request.
            Interrupted: the connection broke, before or within the body.
        """
        with self._speaking(f"{file.repo}/{file.path}"):
            from huggingface_hub import hf_hub_url  # noqa: PLC0415 - late

            url = hf_hub_url(file.repo, file.path, revision=file.revision, endpoint=self._endpoint)
            headers = {"accept-encoding": "identity"}
            if offset or end is not None:
                last = "" if end is None else str(end - 1)
                headers["range"] = f"bytes={offset}-{last}"
            with self._answer(url, headers) as answer:
                # Chunks as they are received: buffered ones would be lost with the connection.
                yield Body(answer.iter_raw(), _begin(answer, file, offset))

    def read(self, file: RemoteFile, end: int) -> bytes:
        """Return the first `end` bytes of a file.

        Raises:
            DownloadFailed: the hub refuses the request.
            Interrupted: the connection broke.
        """
        found = bytearray()
        with self.open(file, 0, min(end, file.bytes)) as body:
            for chunk in body.chunks:
                found += chunk
                if len(found) >= end:
                    break
        return bytes(found[:end])

    def cached(self, file: RemoteFile) -> Path | None:
        """Return the file's path in huggingface_hub's cache on this machine, or None."""
        from huggingface_hub import constants  # noqa: PLC0415 - late
        from huggingface_hub.file_download import repo_folder_name  # noqa: PLC0415 - late

        folder = repo_folder_name(repo_id=file.repo, repo_type="model")
        path = Path(constants.HF_HUB_CACHE) / folder / "blobs" / file.digest
        return path if path.is_file() and path.stat().st_size == file.bytes else None

    def _authorization(self) -> str | bool:
        from huggingface_hub import get_token  # noqa: PLC0415 - late

        return self._token or get_token() or False

    @contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Iterator[Any]:
        """Yield the response to a GET; redirects are followed without the token."""
        from huggingface_hub import get_session  # noqa: PLC0415 - late
        from huggingface_hub.utils import _http  # noqa: PLC0415 - late

        for _ in range(REDIRECTS_MAX):
            with get_session().stream(
                "GET",
                url,
                headers=headers | self._bearer(url),
                timeout=TIMEOUT_S,
                follow_redirects=False,
            ) as answer:
                if not answer.is_redirect:
                    if answer.is_error:
                        answer.read()
                    _http.hf_raise_for_status(answer)
                    yield answer
                    return
                target = urljoin(url, answer.headers.get("location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise DownloadFailed(f"the hub sends us to {urlsplit(target).netloc} without TLS")
            url = target
        raise DownloadFailed(
            f"the hub sends us from place to place, more than {REDIRECTS_MAX} times"
        )

    def _bearer(self, url: str) -> dict[str, str]:
        """Return the header with the token for a URL of the hub; empty for any other host."""
        asked, own = urlsplit(url), urlsplit(self._endpoint)
        token = self._authorization()
        if not token or (asked.scheme, asked.netloc) != (own.scheme, own.netloc):
            return {}
        return {"authorization": f"Bearer {token}"}

    @contextmanager
    def _speaking(self, what: str) -> Iterator[None]:
        """Convert exceptions of huggingface_hub and of HTTP to our own errors."""
        if self._offline:
            raise DownloadFailed(f"{what}: offline is set (hub.offline), so nothing is fetched")
        _require_start(what)
        import httpx2  # noqa: PLC0415 - late, as below
        from huggingface_hub import errors  # noqa: PLC0415 - late, as below

        try:
            yield
        except errors.GatedRepoError:
            raise DownloadFailed(
                f"{what} is gated: accept its terms on the hub, then give a token (hub.token)"
            ) from None
        except errors.RepositoryNotFoundError:
            raise DownloadFailed(
                f"{what}: there is no such repository, or it is private and needs hub.token"
            ) from None
        except errors.RevisionNotFoundError:
            raise DownloadFailed(f"{what}: the repository has no such revision") from None
        except errors.EntryNotFoundError:
            raise DownloadFailed(f"{what}: the repository has no such file") from None
        except errors.OfflineModeIsEnabled:
            raise DownloadFailed(f"{what}: HF_HUB_OFFLINE is set, so nothing is fetched") from None
        except errors.HFValidationError as error:
            raise DownloadFailed(f"{what}: {error}") from None
        except errors.HfHubHTTPError as error:
            raise _refused(what, error.response) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            kind = Interrupted if connection.passes(error) else DownloadFailed
            raise kind(f"{what}: {connection.unreached(error, self._endpoint)}") from None


def _require_start(what: str) -> None:
    """Start the hub's client, which reads the environment when it is imported and started."""
    import httpx2  # noqa: PLC0415 - late: a quarter of a second with the hub's client

    try:
        from huggingface_hub import get_session  # noqa: PLC0415 - late

        get_session()
    except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
        why = connection.fault(error, settings.connection_variables())
        raise DownloadFailed(f"{what}: {why}") from None


def _refused(what: str, answer: Any) -> Exception:
    status = answer.status_code if answer is not None else 0
    if status in {408, 425, 429} or status >= 500:  # noqa: PLR2004 - its own fault, for now
        wait = answer.headers.get("retry-after", "")
        wait_s = float(wait) if wait.isascii() and wait.isdigit() else 0.0
        return Interrupted(f"{what}: the hub answers {status}", wait_s=wait_s)
    if status == 416:  # noqa: PLR2004 - nothing is where we go on
        return DownloadFailed(f"{what}: the file at the hub is shorter than it said")
    return DownloadFailed(f"{what}: the hub answers {status}")


def _begin(answer: Any, file: RemoteFile, asked: int) -> int:
    """Return a body's position in the file; a server may ignore the range, or send a wrong one."""
    coding = answer.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise DownloadFailed(
            f"{file.path}: it is sent compressed ({coding}) though that was not asked for; is "
            "there a proxy in between that should not change it?"
        )
    partial = 206
    if answer.status_code != partial:
        return 0
    match = _RANGE.match(answer.headers.get("content-range", ""))
    if match is None or int(match[1]) != asked:
        raise Interrupted("the hub answers another part of the file than it was asked for")
    if match[2] not in ("*", str(file.bytes)):
        raise DownloadFailed(
            f"{file.path}: the hub has {match[2]} bytes of it now, and said {file.bytes}"
        )
    return asked
