"""Foreign: files that are no model we serve, recognized so that the refusal can say what they are.

Owns the signatures of other formats, and the keys by which a GGUF file says that it is only a part
of something, or an addition to it.
"""

from appliance.catalog.header import Header

HEAD_BYTES = 64
"""Bytes from the start of a file that `kind_of_bytes` looks at."""

_FOLDER = "give the folder that holds it, with its config.json"
_SIGNATURES = (
    (b"FUGG", "a GGUF file of the other byte order (big-endian); fetch the little-endian one"),
    (b"PK\x03\x04", f"a PyTorch file or a zip archive; {_FOLDER} and model.safetensors"),
    (b"\x80\x02", f"a PyTorch file; {_FOLDER} and model.safetensors"),
    (b"lmgg", "a model in a format from before GGUF; fetch it as GGUF"),
    (b"tjgg", "a model in a format from before GGUF; fetch it as GGUF"),
    (b"fmgg", "a model in a format from before GGUF; fetch it as GGUF"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page; fetch the file itself"),
    (b"<html", "a web page; fetch the file itself"),
)
_SAFETENSORS_HEADER_AT = 8
_PARTS = {
    "adapter": "a LoRA adapter, which changes another model; merge it into that one first",
    "mmproj": "a projector for images or sound (mmproj), a part of another model; it has no text",
    "imatrix": "an importance matrix, which is for quantizing; it is no model",
    "vocab": "a vocabulary without a model",
}
"""`general.type` of files that hold no model, and what they are."""


def kind_of_bytes(head: bytes) -> str | None:
    """Return what a file is, from its first bytes, and what to do; None: it is not known."""
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[_SAFETENSORS_HEADER_AT : _SAFETENSORS_HEADER_AT + 1] == b"{":
        return f"a safetensors file; {_FOLDER}"
    return None


def part_reason(header: Header) -> str | None:
    """Return why a GGUF file is not a whole model, and what to do; None: it is one."""
    kind = header.get_str("general.type", "model")
    if header.get_str("general.architecture") == "clip":
        kind = "mmproj"
    if kind in _PARTS:
        return f"it is {_PARTS[kind]}"
    parts = header.get_int("split.count", 1)
    if parts > 1:
        number = header.get_int("split.no", 0) + 1
        return (
            f"it is part {number} of {parts} of a split file; join them first: "
            "llama-gguf-split --merge FIRST-PART whole.gguf"
        )
    return None
