"""Trials: what an operator does with trials of model files: run one again, read what it found."""

import asyncio
from collections.abc import Callable

import msgspec

from appliance.admin.models import Models
from appliance.catalog.spec import ModelSpec
from appliance.core.errors import InvalidRequest, LoadFailed, ModelNotServed, TrialUnfinished
from appliance.engine.screening import Screening
from appliance.wire.models import LengthView, TrialRunView, TrialView, TryOrder


class TrialAdmin:
    """The operator's verbs for trials."""

    def __init__(
        self,
        models: Models,
        screening: Screening | None,
        on_tried: Callable[[ModelSpec], None] = lambda _: None,
    ) -> None:
        """Wire it; `screening` is None where the engine is fake.

        `on_tried` is called when a trial has ended that an operator asked for.
        """
        self._on_tried = on_tried
        self._models = models
        self._screening = screening

    async def run(self, order: TryOrder) -> TrialView:
        """Try a model's file again, and return what was found, which counts from now on.

        Cancelling this ends the trial's process; what was known before stays.

        Raises:
            ModelNotFound: no model has this name.
            ModelNotServed: its file is not here.
            InvalidRequest: the engine is fake.
            TrialUnfinished: the trial ended for no fault of the file.
        """
        spec = self._models.find(order.id)
        if self._screening is None:
            raise InvalidRequest("the fake engine computes no files", param="id")
        if not spec.path.exists():
            reason = f"its file {spec.path.name} is not on this machine"
            raise ModelNotServed(model=spec.id, reason=reason)
        run = self._screening.begin(spec, fresh=True, long=order.long)
        try:
            await asyncio.wrap_future(run.done)
        except TrialUnfinished:
            raise
        except LoadFailed:
            pass  # the record says why
        except asyncio.CancelledError:
            run.cancel()
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # somebody else has ended the trial
                raise TrialUnfinished(spec.path.name, "its trial was cancelled") from None
            raise
        found = self.find(spec)
        assert found is not None
        self._on_tried(spec)
        return found

    async def running(self, name: str) -> TrialRunView:
        """Return how far the trial of a model's file is; without a step if none waits or runs.

        Raises:
            ModelNotFound: no model has this name.
        """
        spec = self._models.find(name)
        run = None if self._screening is None else self._screening.running(spec)
        if run is None:
            return TrialRunView(spec.id)
        lengths = msgspec.convert(list(run.trial.lengths), list[LengthView], from_attributes=True)
        return TrialRunView(spec.id, run.trial.step, lengths)

    def find(self, spec: ModelSpec) -> TrialView | None:
        """Return what the trial of a model's file found; None: it was not tried."""
        record = None if self._screening is None else self._screening.known(spec)
        if record is None:
            return None
        return msgspec.convert(
            {"model": spec.id, **msgspec.to_builtins(record)}, TrialView, strict=False
        )
