"""The adapters of an engine: read, put on its model, and chosen by name for each session or request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mlx_qwen3.adapters import adapted_modules, read_adapter
from mlx_qwen3.adapters.adapter import Adapter
from mlx_qwen3.errors import EngineError
from mlx_qwen3.model.qwen3 import Model

NONE = "none"
"""The name that means the model without an adapter."""
MAX_NAME = 64  # characters


class Adapters:
    """Adapters of one model by name. They share its weights; the model switches between them.

    Attributes:
        default: That of requests which name none; None is the model alone.
    """

    def __init__(self, adapter: object, adapters: object):
        """adapter, adapters: as of Engine. Raises EngineError."""
        if adapter is not None and not isinstance(adapter, str | Path):
            raise EngineError(f"adapter must be a folder, a name of adapters, or None, not {adapter!r}")
        if adapters is not None and not isinstance(adapters, Mapping):
            raise EngineError(f"adapters must be a mapping of names to folders, not {adapters!r}")
        self._folders: dict[str, str | Path] = {}
        self._digests: dict[str, str] = {}
        for name, folder in (adapters or {}).items():
            self._check(name, folder)
            self._folders[name] = folder
        self.default: str | None = None
        if isinstance(adapter, str) and adapter in self._folders:
            self.default = adapter
        elif adapter is not None:
            self.default = self.name_of(adapter)
            self._folders[self.default] = adapter

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._folders)

    @property
    def folders(self) -> dict[str, str | Path]:
        return dict(self._folders)

    def name_of(self, folder: str | Path) -> str:
        """A free name for an adapter: its folder's, with a number if that is taken."""
        wanted = "".join(c for c in Path(folder).expanduser().resolve().name if c.isprintable())
        wanted = wanted[: MAX_NAME - 4] or "adapter"
        names = (wanted if number == 1 else f"{wanted}-{number}" for number in range(1, 10_000))
        return next(name for name in names if name not in self._folders and name != NONE)

    def find(self, name: object) -> str | None:
        """The adapter that a session or request asks for; None is the model alone. Raises EngineError."""
        if name is None:
            return self.default
        if name == NONE:
            return None
        if not isinstance(name, str) or name not in self._folders:
            known = ", ".join([*self._folders, NONE])
            raise EngineError(f"there is no adapter {name!r:.80}; there are: {known}")
        return name

    def digest(self, name: str) -> str:
        """Of its numbers and settings."""
        return self._digests[name]

    @property
    def digests(self) -> dict[str, str]:
        """The `digest` of each."""
        return dict(self._digests)

    def put_on(
        self, model: Model, model_name: str, part: Callable[[Adapter], Adapter] = lambda adapter: adapter
    ) -> None:
        """Read all of them for a model that was just loaded. Raises CheckpointError.

        part: what the model needs of each, if it is itself a part.
        """
        for name, folder in self._folders.items():
            self._read(name, folder, model, model_name, part)
        model.use_adapter(self.default)

    def add(self, name: str, folder: str | Path, model: Model, model_name: str) -> None:
        """Read one more. Raises CheckpointError, EngineError; nothing has changed then."""
        self._check(name, folder)
        self._read(name, folder, model, model_name, lambda adapter: adapter)
        self._folders[name] = folder

    def _read(
        self,
        name: str,
        folder: str | Path,
        model: Model,
        model_name: str,
        part: Callable[[Adapter], Adapter],
    ) -> None:
        adapter = read_adapter(folder)
        model.use_adapter(None)
        model.know_adapter(name, adapted_modules(model, part(adapter), model_name))
        self._digests[name] = adapter.digest

    def _check(self, name: object, folder: object) -> None:
        is_name = isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()
        if not is_name or name == NONE:
            raise EngineError(
                f"an adapter's name must be 1 to {MAX_NAME} characters and not {NONE}, not {name!r:.80}"
            )
        if name in self._folders:
            raise EngineError(f"there is an adapter {name} already; choose another name")
        if not isinstance(folder, str | Path):
            raise EngineError(f"the adapter {name} must be a folder, not {folder!r:.80}")
