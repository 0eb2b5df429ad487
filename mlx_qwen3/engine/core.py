"""EngineCore: the one thread that owns MLX. It loads the model and runs every request on it.

Nothing else touches arrays. Requests are added to the scheduler; between two passes the thread looks
for new ones.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prefix_pool import PrefixPool
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.cache.snapshots import SnapshotBudget
from mlx_qwen3.checkpoint import resolve
from mlx_qwen3.checkpoint.load import LoadedModel, load
from mlx_qwen3.checkpoint.shares.fetch_share import fetch_config
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.distributed.group import rank_of_process
from mlx_qwen3.engine.loading.draft_model import AUTO, TEXT, TwoModels, draft_cache_config, load_draft_model
from mlx_qwen3.engine.loading.options import check_options
from mlx_qwen3.engine.loading.planned_model import PlannedModel
from mlx_qwen3.engine.loading.ranks import Ranks, Request, follow, lead, leave_at_exit, tell_of_loss
from mlx_qwen3.engine.loading.warm_up import warm_up
from mlx_qwen3.engine.loading.watch import LoadWatch
from mlx_qwen3.engine.memory.guard import IDLE_INTERVAL, MemoryGuard
from mlx_qwen3.engine.memory.parking import ParkingLot
from mlx_qwen3.engine.request import Inbox, end_thread, mark_engine_thread
from mlx_qwen3.errors import DistributedError, EngineError, Qwen3Error
from mlx_qwen3.generation.scheduler import Scheduler, SchedulerStats
from mlx_qwen3.generation.sequence import Sequence
from mlx_qwen3.generation.speculative.drafters import Drafter, ModelDrafter, NGramDrafter
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.tokenizer import Tokenizer

T = TypeVar("T")

log = logging.getLogger("mlx_qwen3")

# Sequences that run at once, if memory holds them: more of them gain little.
CPU_BATCH, GPU_BATCH = 16, 32


class EngineCore(PlannedModel):
    """The model, its tokenizer, and the thread they run on. `Engine` is its public face."""

    def __init__(self, model: str, options: dict[str, Any], watch: LoadWatch):
        """options: the other arguments of Engine, to make another like it. watch: told of the loading."""
        self.name, self.options = str(model), options
        check_options(model, **options)
        if options["distributed"] is not None and rank_of_process():
            follow()  # rank 0's engine, until that ends; then this process ends too
        self.cache_config = CacheConfig(max_size=options["max_kv_size"], bits=options["kv_bits"])
        self._draft_setting = options["draft_model"]
        self._watch = watch
        self.sessions = ParkingLot()
        """The KV caches of sessions, which can be parked on disk."""
        self._last_work = time.monotonic()
        self._inbox = Inbox()
        self._is_closed = False
        self._death: BaseException | None = None
        self._is_lost = threading.Event()
        self._process = os.getpid()
        self._ranks: Ranks | None = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="mlx_qwen3 engine", daemon=True)
        self._thread.start()
        # Left open at exit, the thread would be cut off while it computes, and the process aborted.
        self._stop = weakref.finalize(
            self, end_thread, self._inbox, self._thread, self._process, self._is_lost
        )
        try:
            self._ready.result()
        except Exception:
            if self._death is None:
                self._thread.join()  # it must not be cut off at exit while MLX cleans up
            raise
        except KeyboardInterrupt:
            self._stop.detach()
            watch.stop()
            self._inbox.put(None)  # if it is loaded by now, it will not be used
            raise

    def _adopt(self, loaded: LoadedModel, tokenizer: Tokenizer, draft: LoadedModel | None) -> None:
        """Set up what runs on the loaded model. On the engine's thread."""
        self._models = TwoModels(None, None)
        self._use(loaded, draft)
        self.folder, self.tokenizer = loaded.folder, tokenizer
        self.config: ModelConfig = loaded.model.args
        """The config as loaded. A long conversation has positions scaled further."""
        headroom = (self._draft_plan or self.plan).headroom  # the draft's is of what the model's leaves
        self.prefixes = PrefixPool(headroom // 2)
        """Prefixes that sessions share. For the engine's thread."""
        self.snapshots = SnapshotBudget(headroom // 2)
        """The memory for snapshots of windows. For the engine's thread."""
        self.scheduler = Scheduler(
            self._models,
            size=CPU_BATCH if is_cpu() else GPU_BATCH,
            room=self._cache_room(),
            nbytes=self.cache_nbytes,
            compute=self._ranks.compute if self._ranks is not None else None,
        )
        self.guard = MemoryGuard(self)
        """Gives memory back where the machine has little left."""

    def _use(self, loaded: LoadedModel, draft: LoadedModel | None) -> None:
        self.model: Any = loaded.model
        """The model; None while it is unloaded. For the engine's thread."""
        self.plan = loaded.plan
        self.draft_model: Any = draft.model if draft else None
        self._draft_plan = draft.plan if draft else None
        self._models.use(self.model, self.draft_model)

    @property
    def failure(self) -> str | None:
        """Why nothing more can run, in one line; None while the engine works."""
        return str(self._unusable()) if self._is_closed or self._death is not None else None

    def stats(self) -> SchedulerStats:
        """Sequences running and waiting, tokens per second, and bytes of KV caches. From any thread."""
        return self.scheduler.stats()

    def new_cache(self) -> PromptCache:
        """An empty cache for one conversation. For the engine's thread."""
        return PromptCache(self.model, self.cache_config, snapshots=self.snapshots)

    def load_cache(self, path: Path, made_with: Mapping[str, str]) -> PromptCache:
        """The cache saved at `path`. For the engine's thread. Raises CacheError."""
        return PromptCache.load(self.model, path, made_with, self.cache_config, snapshots=self.snapshots)

    def new_drafter(self) -> Drafter | None:
        """What drafts in one conversation, if anything. For the engine's thread."""
        if self.draft_model is not None:
            config = draft_cache_config(self.draft_model, self.cache_config)
            return ModelDrafter(self.draft_model, cache_config=config, snapshots=self.snapshots)
        return NGramDrafter() if self._draft_setting in (AUTO, TEXT) else None

    def submit(self, sequence: Sequence) -> None:
        """Have the scheduler run `sequence`. From any thread."""
        self._refuse_if_unusable()
        if not self.config.has_output_head:
            raise EngineError(
                f"{self.name} has no output head, as embedding models do, so it writes no text; it can embed"
            )
        self._inbox.put(lambda: self._add(sequence))
        if self._death is not None:  # it died meanwhile, and nothing looks into the inbox any more
            self._fail_inbox()

    def call(self, function: Callable[[], T], reload: bool = True) -> T:
        """Run `function` on the engine's thread and return what it returns.

        reload: load the model first if it is unloaded.
        """
        self._refuse_if_unusable()
        future: Future[T] = Future()

        def run() -> None:
            if self._death is not None or self._is_closed:
                future.set_exception(self._unusable())
                return
            try:
                if reload:
                    self._reload()
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  # the caller gets it
                future.set_exception(error)
            except BaseException as error:  # a library's panic, which ends the thread
                self._death = error
                future.set_exception(self._unusable())
                raise

        self._inbox.put(run)
        if self._death is not None:
            self._fail_inbox()
        return future.result()

    def close(self) -> None:
        """Stop the thread; running requests end with an EngineError. Closing twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            self._stop()

    def explain(self, error: Exception | None) -> Exception | None:
        """`error` of a sequence, or what is behind it where machines work together."""
        return self._ranks.explain(error) if self._ranks is not None and error is not None else error

    def _lose(self, line: str) -> None:
        """A machine is lost: end what runs. The engine's thread may wait for it without end."""
        self._death = DistributedError(line)
        leave_at_exit()
        self._stop.detach()
        self._is_lost.set()  # for a `close` that waits already
        if not self._ready.done():
            self._ready.set_exception(self._death)
            return
        self.scheduler.abandon(self._death)
        self._fail_inbox()
        tell_of_loss(line)

    def _refuse_if_unusable(self) -> None:
        if os.getpid() != self._process:
            raise EngineError("this process was forked after the engine was made; make a new Engine in it")
        if self._is_closed or self._death is not None:
            raise self._unusable()

    def _unusable(self) -> EngineError:
        if isinstance(self._death, DistributedError):
            return self._death
        if self._death is not None:
            reason = f"{type(self._death).__name__}: {self._death}"
            return EngineError(f"the engine's thread died ({reason}); make a new Engine")
        return EngineError("the engine is closed; make a new Engine")

    # On the engine's thread

    def _fetch(self) -> Path:
        places = {name: self.options[name] for name in ("models_dir", "revision")}
        return resolve(self.name, self._watch.downloading, cancel=self._watch, **places)

    def _load(self, folder: Path) -> tuple[LoadedModel, LoadedModel | None]:
        """The model and its draft model."""
        context, config = self.options["context"], self.cache_config
        given: dict[str, Any] = {
            name: self.options[name] for name in ("dtype", "wired") if self.options[name] is not None
        }
        if (mode := self.options["distributed"]) is not None:
            request = Request(self.name, mode, context, config, self.options["dtype"])
            self._ranks = lead(request, self.known_adapters, self._lose, self._watch.downloading)
            loaded = self._ranks.loaded
        else:
            given["on_load"] = self._watch.loading
            loaded = self._adapted(load(folder, context, config, self.name, **given))
            warm_up(loaded.model)
        return loaded, load_draft_model(
            self._draft_setting, loaded, config, context, self._watch, self.options["models_dir"]
        )

    def _unload(self) -> bool:
        """Give the model's memory back until the next request. Returns whether it is out of memory."""
        if self.model is None or self.options["distributed"] or not self.scheduler.is_idle:
            return self.model is None
        self.guard.park_idle()
        self.sessions.let_go()
        self.prefixes, self.snapshots = PrefixPool(self.prefixes.limit), SnapshotBudget(self.snapshots.limit)
        self.model = self.draft_model = None
        self._models.use(None, None)
        mx.clear_cache()
        log.info("unloaded %s", self.name)
        return True

    def _reload(self) -> None:
        if self.model is None:
            self._use(*self._load(self.folder))

    def _add(self, sequence: Sequence) -> None:
        try:
            self._reload()
        except Qwen3Error as error:
            sequence.close(error)
        else:
            self.scheduler.add(sequence)
            if self._death is not None:  # on another thread, which may have missed this sequence
                self.scheduler.abandon(self._unusable())

    def _run(self) -> None:
        mark_engine_thread()
        try:
            is_alone = self.options["distributed"] is None
            folder = self._fetch() if is_alone else fetch_config(self.name)
            loaded, draft = self._load(folder)
            self._adopt(loaded, load_tokenizer(loaded.folder), draft)
            log.info("loaded %s from %s, with a context of %d tokens", self.name, self.folder, self.context)
            self._watch = LoadWatch()  # what was given is for this loading alone
            del loaded, draft  # or this frame would keep a model that is unloaded
        except BaseException as error:  # noqa: BLE001  # the caller waits for it
            if self._ranks is not None and isinstance(error, Exception):
                self._ranks.end(error)
            if not self._ready.done():
                self._ready.set_exception(error)
        else:
            self._ready.set_result(None)
            try:
                self._serve()
            except BaseException as error:  # noqa: BLE001  # a library's panic; callers must not wait for ever
                self._death = error
                self.scheduler.abandon(self._unusable())
                self._fail_inbox()
        finally:
            # MLX asks for this at the end of every thread; without it the process may abort at exit.
            mx.clear_streams()

    def _serve(self) -> None:
        while True:
            try:
                while True:
                    is_idle = self.scheduler.is_idle
                    call = self._inbox.get(is_idle, IDLE_INTERVAL if self.model is not None else None)
                    if call is None:
                        self._fail_inbox()
                        if self._ranks is not None:
                            self._ranks.end()
                        self.scheduler.abandon(EngineError("the engine was closed"))
                        return
                    call()
                    del call  # or it would keep the sequence, its cache and the model until the next one
                    self._last_work = time.monotonic()
            except queue.Empty:
                self._work()

    def _work(self) -> None:
        """A pass, or where there is nothing to run, a look at what could be given back."""
        if not self.scheduler.is_idle:
            self.scheduler.step()
            self._last_work = time.monotonic()
        elif (after := self.options["unload_after"]) and time.monotonic() - self._last_work > after:
            self._unload()
        self.guard.watch()

    def _fail_inbox(self) -> None:
        """Take what was submitted too late; a call finds that the engine is gone, a sequence is abandoned."""
        self._inbox.run_all()
        if self._death is not None:
            self.scheduler.abandon(self._unusable())
