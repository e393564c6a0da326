"""ModelLookup: which model a call means, by the name that it gives or by none.

A key that is bound to some models knows of no others: they are not found, and not named as near.
"""

from collections.abc import Callable, Sequence

from appliance.accounts.key import Key
from appliance.call import Meant
from appliance.catalog.catalog import Catalog
from appliance.catalog.spec import ModelSpec
from appliance.pricing.tariff import TaskKind
from appliance.scheduler.residency import Residency


class ModelLookup:
    """Finds models in the catalogue as it stands now."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        residency: Residency,
        *,
        default_models: Sequence[str] = (),
    ) -> None:
        """`default_models` are for calls that name none, the first that is here of each task."""
        self._catalog = catalog
        self._residency = residency
        self._default_models = default_models

    def find(self, key: Key, name: str, meant: Meant | None = None) -> ModelSpec:
        """Return the model with this name, whatever it does; `meant` is told of one that is known.

        Raises:
            ModelNotFound: no model has this name, or this key may not know of it.
            ModelNotServed: its file is missing or unusable.
        """
        spec = self._known_to(key).find(name)
        if meant is not None:
            meant.model = spec.id
        self._residency.require_served(spec)
        return spec

    def resolve(
        self, key: Key, name: str | None, task: TaskKind, meant: Meant | None = None
    ) -> ModelSpec:
        """Return the model for a task, by its name or as the default; `meant` as for `find`.

        The default is the first of the key's own list that does the task; a key without a list has
        the server's.

        Raises:
            ModelNotFound, ModelNotServed: as for `find`.
            WrongTask: it does something else.
            InvalidRequest: there is no default model, or several could be meant.
        """
        known = self._known_to(key)
        found = meant or Meant()
        if name is None:
            spec = self._default(known, task, key.limits.models or ())
            found.model = spec.id
            return spec
        found.model = known.find(name).id
        spec = known.resolve(name, task)
        self._residency.require_served(spec)
        return spec

    def default(self, task: TaskKind) -> ModelSpec:
        """Return the model for calls of a task that name none.

        Raises:
            InvalidRequest: there is none, or several could be meant.
        """
        return self._default(self._catalog(), task, ())

    def _default(self, catalog: Catalog, task: TaskKind, of_key: Sequence[str]) -> ModelSpec:
        served = [spec for spec in catalog if spec.task == task and self._residency.is_served(spec)]
        return catalog.default([*of_key, *self._default_models], served, task)

    def _known_to(self, key: Key) -> Catalog:
        catalog = self._catalog()
        if key.limits.models is None:
            return catalog
        return Catalog([spec for spec in catalog if key.may_call(spec.id)])
