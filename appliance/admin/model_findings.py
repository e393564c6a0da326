"""Model findings: what the doctor says of models, their files and their memory."""

from collections.abc import Mapping, Sequence

from appliance.wire.doctor import Finding
from appliance.wire.engines import DeviceView, EngineList
from appliance.wire.models import ModelView

GB = 1_000_000_000
MEMORY_LOW_BYTES = GB
FULL = 0.9
"""Of the room for models, from which on little is left."""
UNREAD = "mend the file, then start the server again; only the shipped models are served"


def models(
    views: Sequence[ModelView], fault: str | None = None, damaged: Mapping[str, str] | None = None
) -> list[Finding]:
    """Say which models can be called, and which files are bad or gone.

    `damaged`: what is wrong with a model's file, by model.
    """
    usable = [view for view in views if view.available]
    bad = [view for view in views if not view.available and not view.missing]
    first = (
        Finding("models", "ok", f"{len(usable)} of {len(views)} can be called")
        if usable
        else Finding("models", "fail", "none can be called", "gigarouter models pull ID")
    )
    broken = [] if fault is None else [Finding("models", "fail", fault, UNREAD)]
    return [
        first,
        *broken,
        *(
            Finding(
                "models",
                "warn",
                f"{view.id}: {view.reason}",
                f"try it again: gigarouter models try {view.id} (models show says more)",
            )
            for view in bad
        ),
        *(
            Finding(
                "models",
                "warn",
                f"{name}: {why}",
                f"put the whole file back, or: gigarouter models remove {name}",
            )
            for name, why in (damaged or {}).items()
        ),
    ]


def memory(devices: Sequence[DeviceView]) -> Finding:
    """Say what is free where models are computed."""
    said = ", ".join(
        f"{each.description or each.name}: {each.free / GB:.1f} of {each.memory / GB:.1f} GB free"
        for each in devices
    )
    if not devices:
        return Finding("memory", "warn", "no device is known", "gigarouter engine install")
    if any(device.memory and device.free < MEMORY_LOW_BYTES for device in devices):
        return Finding("memory", "warn", said, "unload a model: gigarouter models unload ID")
    return Finding("memory", "ok", said)


def loaded(engines: EngineList) -> list[Finding]:
    """Say what models take of their room, and which could not be loaded."""
    failed = [
        Finding(
            "engines",
            "warn",
            f"{engine.model}: {engine.reason}",
            f"gigarouter models verify {engine.model}",
        )
        for engine in engines.data
        if engine.state == "failed"
    ]
    failed += [
        Finding(
            "engines",
            "warn",
            f"{engine.model}: {engine.note}",
            f"gigarouter models unload {engine.model}, then load; or put the file back",
        )
        for engine in engines.data
        if engine.note
    ]
    taken, room = engines.memory_taken, engines.memory_max
    said = f"models take {taken / GB:.1f} GB" + (f" of {room / GB:.1f} GB" if room else "")
    if room and taken > FULL * room:
        return [Finding("engines", "warn", said, "raise engine.memory_mb, or unload one"), *failed]
    return [Finding("engines", "ok", said), *failed]
