"""Deployments, in memory: names for served models. Each model is also one, by its own name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cogsmith.errors import UnknownResource
from cogsmith.gateway.models import Models
from cogsmith.gateway.worker import Worker


@dataclass(frozen=True, slots=True)
class Deployment:
    """A name for a model. Hardware and instances are kept as they were asked for, and mean nothing here."""

    name: str
    worker: Worker
    model_ref: str
    hardware: str = "local"
    min_instances: int = 1
    max_instances: int = 1
    release: int = 1
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Deployments:
    """The deployments of this gateway; as with models, any owner's."""

    def __init__(self, models: Models, owner: str) -> None:
        """`owner` is whom the served models belong to where nobody says."""
        self._made: dict[str, Deployment] = {}
        self._given = {
            worker.model.name: Deployment(
                worker.model.name, worker, f"{owner}/{worker.model.name}", created_at=worker.model.created_at
            )
            for worker in models.all()
        }

    def all(self) -> list[Deployment]:
        """Those made here, the newest first, then the served models."""
        return [*reversed(self._made.values()), *self._given.values()]

    def find(self, name: str) -> Deployment:
        """The deployment of this name, in any case of its letters. Raises UnknownResource."""
        deployment = self._made.get(name.lower()) or self._given.get(name.lower())
        if deployment is None:
            names = ", ".join(deployment.name for deployment in self.all())
            raise UnknownResource(f"there is no deployment {name!r} here", fix=f"make it, or use one of: {names}")
        return deployment

    def has(self, name: str) -> bool:
        """Whether the name is taken."""
        return name in self._made or name in self._given

    def is_given(self, name: str) -> bool:
        """Whether it is a served model's own, which stays as it is."""
        return name.lower() in self._given

    def make(self, deployment: Deployment) -> None:
        """Add it. Its name must be free."""
        self._made[deployment.name] = deployment

    def update(self, name: str, changes: dict[str, Any]) -> Deployment:
        """Release it anew with other settings. It must have been made here."""
        deployment = self.find(name)
        released = replace(deployment, **changes, release=deployment.release + 1, created_at=datetime.now(UTC))
        self._made[deployment.name] = released
        return released

    def remove(self, name: str) -> None:
        """Forget it. It must have been made here."""
        del self._made[self.find(name).name]
