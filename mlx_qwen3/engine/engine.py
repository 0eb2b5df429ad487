"""Engine: a loaded model, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mlx_qwen3.checkpoint.transfer.transfer import Cancel
from mlx_qwen3.engine.batch import BatchOptions, BatchRun, Prompt
from mlx_qwen3.engine.completion import Completion
from mlx_qwen3.engine.loading.draft_model import AUTO
from mlx_qwen3.engine.loading.in_asyncio import open_in_asyncio
from mlx_qwen3.engine.loading.watch import LoadWatch, OnProgress
from mlx_qwen3.engine.memory.hooks import MemoryHooks
from mlx_qwen3.engine.request import params_for
from mlx_qwen3.engine.session import Session
from mlx_qwen3.engine.tool_loop import allow_own
from mlx_qwen3.errors import EngineError, MessageError
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.grammar import AnswerSchema
from mlx_qwen3.tools.base import Tool
from mlx_qwen3.tools.toolbox import Approve, ToolBox

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Engine(MemoryHooks):
    """A loaded model and the thread that runs it. Close it, or use it in a `with` block.

    Everything that runs on it is decoded together: sessions, batches and completions.
    """

    def __init__(
        self,
        model: str | Path = "demo",
        *,
        context: int | None = None,
        max_kv_size: int | None = None,
        kv_bits: int | None = None,
        draft_model: str | None = AUTO,
        dtype: str | None = None,
        wired: bool | None = None,
        unload_after: float | None = None,
        distributed: str | None = None,
        adapter: str | Path | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        models_dir: str | Path | None = None,
        revision: str | None = None,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ):
        """Load a model; this returns once it can be used.

        Args:
            model: A folder, a short name (`14b`), `demo`, or a hub id.
            context: Tokens that a conversation may need. Above the model's native length positions are
                scaled (YaRN). None is what memory holds, up to the native length.
            max_kv_size: Tokens that each session's KV cache holds: the first few and the latest. A
                conversation then has no end.
            kv_bits: 4 or 8 stores the KV cache quantized.
            draft_model: A smaller model of the same vocabulary that drafts tokens; `text` drafts from the
                text itself; `auto` takes the family's smallest where that pays and it is downloaded, else
                the text; None drafts nothing. The text generated is the same with any.
            dtype: Of a GPU's numbers: `float16` or `bfloat16`; None (or `auto`) is as the checkpoint stores
                them, except on M1 and M2, which emulate bfloat16.
            wired: Whether macOS keeps the model in memory whatever other programs need, within what Metal
                recommends; None does as `MLX_QWEN3_WIRED` says, which by default is not to.
            unload_after: Seconds without work after which the model's memory is given back; the next request
                loads it again. None keeps it.
            distributed: `tensor` or `pipeline` splits the model over the ranks that a launcher started, such
                as `mlx.launch`. Every rank makes this call; on rank 0 it returns, and the others follow it
                until its engine is closed, then exit.
            adapter: The folder of a LoRA or DoRA adapter, as mlx-lm or PEFT saves it, or the name of one of
                `adapters`: what sessions and requests have that choose none.
            adapters: Folders of adapters by name, of which each session and request can choose one. All
                share the weights of the model.
            models_dir: Where downloads go in place of the hub's cache, such as a folder of a sandboxed app. A
                model's folder of that name in it is used as it is.
            revision: A branch, a tag or a commit of the hub's repository.
            on_progress: Called with each `LoadProgress`, of the download and of the loading, on the engine's
                thread.
            cancel: A `threading.Event` that ends the download or the loading within a fraction of a second.
                What was downloaded stays, and the next call goes on from there.

        Raises:
            ModelNotFoundError: No such folder, name or repository.
            ConfigError, CheckpointError, TokenizerError: The checkpoint cannot be used.
            InsufficientMemoryError: Model and context do not fit this machine.
            CacheError: `max_kv_size` or `kv_bits` cannot be used.
            DistributedError: The model cannot be split like that, or a rank is missing, differs or fails.
            LoadCancelledError: `cancel` was set.
        """
        options = {
            "context": context,
            "max_kv_size": max_kv_size,
            "kv_bits": kv_bits,
            "draft_model": draft_model,
            "dtype": dtype,
            "wired": wired,
            "unload_after": unload_after,
            "distributed": distributed,
            "adapter": adapter,
            "adapters": adapters,
            "models_dir": models_dir,
            "revision": revision,
        }
        name = str(model) if isinstance(model, Path) else model
        super().__init__(name, options, LoadWatch(on_progress, cancel))

    @classmethod
    def load(cls, model: str | Path = "demo", **options: Any) -> Engine:
        """`Engine(model, **options)`, under a name that says what takes its time."""
        return cls(model, **options)

    @classmethod
    async def aload(cls, model: str | Path = "demo", **options: Any) -> Engine:
        """An engine, loaded without keeping the event loop waiting. Takes the arguments of Engine.

        `on_progress` is called on the event loop. A task that is cancelled ends the loading.
        """
        return await open_in_asyncio(partial(cls, model), **options)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that sessions and requests can choose; `none` is the model alone."""
        return self.known_adapters.names

    @property
    def adapter_folders(self) -> dict[str, str | Path]:
        """The folder of each adapter, by its name."""
        return self.known_adapters.folders

    def load_adapter(self, folder: str | Path, name: str | None = None) -> str:
        """Read one more adapter, for sessions and requests to choose.

        Args:
            folder: A LoRA or DoRA adapter, as mlx-lm or PEFT saves it.
            name: What it is called; None is the name of its folder.

        Returns:
            Its name.

        Raises:
            CheckpointError: It cannot be used with this model.
            EngineError: The name is taken, or the engine is closed or spread over several machines.
        """
        if self.options["distributed"] is not None:
            raise EngineError(
                "no adapter can be added to a model that runs over several machines; give adapters to Engine"
            )
        chosen = self.known_adapters.name_of(folder) if name is None else name
        self.call(lambda: self.known_adapters.add(chosen, folder, self.model, self.name))
        known = self.known_adapters
        self.options |= {"adapter": known.default, "adapters": known.folders}
        return chosen

    def session(
        self,
        *,
        system: str | None = None,
        thinking: bool = True,
        thinking_budget: int | None = None,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
        tools: ToolBox | Iterable[Tool | Callable[..., Any]] = (),
        approve: Approve = allow_own,
        max_steps: int = 10,
        adapter: str | None = None,
    ) -> Session:
        """Start a conversation.

        Args:
            system: A system message.
            thinking: Whether the model may think before it answers. If so, `/think` and `/no_think` inside a
                message switch it from there on.
            thinking_budget: The most tokens of thinking; None is no limit.
            sampling: SamplingParams, or a mapping of the values that differ from the mode's preset.
            tools: What the model may call: typed functions, tools, or a ToolBox.
            approve: Asked before each call. By default the program's own functions are allowed, and tools of
                MCP servers are not.
            max_steps: How often in one turn the model may call tools and read their results.
            adapter: The name of the adapter that it runs with, `none` for the model alone; None is the
                engine's own. `Session.adapter` changes it later.

        Raises:
            EngineError: There is no such adapter.
            MessageError: An argument is of the wrong type.
            ToolError: A tool cannot be used.
        """
        return Session(
            self,
            system=system,
            thinking=thinking,
            thinking_budget=thinking_budget,
            sampling=sampling,
            tools=tools,
            approve=approve,
            max_steps=max_steps,
            adapter=adapter,
        )

    def complete(
        self,
        prompt: str,
        *,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
        control_tokens: bool = False,
        adapter: str | None = None,
    ) -> Completion:
        """Continue a text, without a chat template.

        Args:
            prompt: The text.
            sampling: SamplingParams, or the values that differ from Qwen's preset for answers.
            control_tokens: Encode special tokens spelled in the text as special tokens.
            adapter: As of `session`.

        Returns:
            An iterator over the text as it comes; `.text` waits for the whole of it.

        Raises:
            MessageError: The prompt is empty, too long or no text.
            SamplingError: A parameter is unknown or out of range.
        """
        if not isinstance(prompt, str):
            raise MessageError(f"prompt must be text, not {type(prompt).__name__}")
        params = params_for(self.tokenizer, thinking=False, sampling=sampling)
        ids = self.tokenizer.encode(prompt, control_tokens=control_tokens)
        return Completion(self, ids, params, adapter)

    def generate_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        sampling: SamplingParams | Mapping[str, Any] | None = None,
        thinking: bool = True,
        thinking_budget: int | None = None,
        control_tokens: bool = False,
        batch_size: int | None = None,
        schema: Any = None,
        adapter: str | None = None,
    ) -> BatchRun:
        """Generate for many prompts at once.

        Each text is what it would be alone (in fp32). A prompt that cannot be used gives a result with an
        `error`.

        Args:
            prompts: Texts to complete, conversations (lists of messages) to answer, or BatchRequests, which
                have settings of their own.
            sampling: SamplingParams for all, or the values that differ from the preset.
            thinking: Whether conversations are answered with thinking.
            thinking_budget: The most tokens of thinking.
            control_tokens: Encode special tokens spelled in texts to complete as special tokens.
            batch_size: Requests that run together; None is what suits the device and the memory.
            schema: Answers to conversations are JSON that follows it, as for `Session.send`.
            adapter: As of `session`; a BatchRequest can have its own.

        Returns:
            An iterator over the results as they finish.

        Raises:
            CacheError: `batch_size` is below 1.
            MessageError, SamplingError, SchemaError: What holds for all prompts cannot be used.
        """
        answer_schema = AnswerSchema.of_any(schema)
        options = BatchOptions(
            sampling, thinking, thinking_budget, control_tokens, batch_size, answer_schema, adapter
        )
        return BatchRun(self, prompts, options)

    def embed(
        self,
        texts: Iterable[str],
        instruction: str | None = None,
        dimensions: int | None = None,
        adapter: str | None = None,
    ) -> NDArray[np.float32]:
        """The embeddings of texts, with a model such as Qwen3-Embedding.

        An embedding is the hidden state of the text's end, of length 1: the product of two is their cosine.
        A text's embedding does not depend on the others.

        Args:
            texts: The texts. Spellings of special tokens are text.
            instruction: What is searched for, in one sentence. For queries; documents have none.
            dimensions: Keep the first so many numbers of each; None keeps all.
            adapter: As of `session`.

        Returns:
            Shape (texts, dimensions).

        Raises:
            MessageError: An argument is not text.
            PromptTooLongError: A text is longer than the model's context.
            EngineError: `dimensions` is out of range, or the engine is closed.
        """
        from mlx_qwen3.engine import embedding

        return embedding.embed(self, texts, instruction, dimensions, adapter)

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        instruction: str | None = None,
        adapter: str | None = None,
    ) -> list[float]:
        """How well each document answers a query, with a model such as Qwen3-Reranker.

        Args:
            query: What is searched for.
            documents: The texts to score. Spellings of special tokens are text.
            instruction: What makes a document relevant; None is Qwen's sentence about web searches.
            adapter: As of `session`.

        Returns:
            A score from 0 to 1 for each document, in their order: the probability of "yes" against "no".

        Raises:
            MessageError: An argument is not text.
            PromptTooLongError: A document is longer than the model's context.
            EngineError: The model has no output head, or the engine is closed.
        """
        from mlx_qwen3.engine import embedding

        return embedding.rerank(self, query, documents, instruction, adapter)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"context {self.context:,}"
        return f"<Engine {self.name!r}: {state}>"
