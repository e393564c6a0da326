"""OpenAPI: the description of this API that the server hands out.

Owns the file beside it: the published gigarouter contract with our additions. It generates nothing:
a contract is written, and tests hold the code to it.
"""

import gzip
from functools import cache
from pathlib import Path


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return Path(__file__).with_name("openapi.json").read_bytes()


@cache
def packed() -> bytes:
    """Return the same in gzip, a tenth of its size."""
    return gzip.compress(document(), mtime=0)
