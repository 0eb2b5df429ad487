"""The assistant of the menu bar: a conversation without a user interface, so the tests run it everywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mlx_qwen3 import Engine, LoadProgress, Qwen3Error, Session
from mlx_qwen3.events import AnswerDelta, Done, Event

Dispatch = Callable[[Callable[[], object]], object]


class Assistant:
    """One conversation. `show` is called on the user interface's thread with the text to display."""

    def __init__(self, model: str, show: Callable[[str], None], dispatch: Dispatch):
        """Begin to load `model`, and return at once.

        dispatch: runs a function on the user interface's thread (PyObjC: `AppHelper.callAfter`).
        """
        self._show, self._dispatch = show, dispatch
        self._cancel = threading.Event()
        self._engine: Engine | None = None
        self._session: Session | None = None
        self._answer = ""
        self._loading = threading.Thread(target=self._load, args=(model,), name="loading")
        self._loading.start()

    def ask(self, question: str) -> None:
        """Send the question and return at once. The answer arrives through `show`."""
        self._answer = ""
        if self._session is None:
            self._show("Still loading ...")
            return
        try:
            self._session.post(question, self._on_event, on_error=self._on_error, dispatch=self._dispatch)
        except Qwen3Error as error:
            self._on_error(error)

    def stop(self) -> None:
        """Stop the loading, or the current answer. What there is by then is kept."""
        if self._session is None:
            self._cancel.set()
        else:
            self._session.cancel()

    def sleep(self) -> None:
        """Give the model's memory back. The next question loads it again, and the conversation goes on."""
        if self._engine is not None:
            self._engine.unload()

    def close(self) -> None:
        """End everything, the loading too."""
        self._cancel.set()
        self._loading.join()
        if self._engine is not None:
            self._engine.close()

    def _load(self, model: str) -> None:
        """On a thread of its own: a large model takes seconds, and its download minutes."""
        try:
            engine = Engine.load(model, on_progress=self._on_progress, cancel=self._cancel)
        except Qwen3Error as error:
            line = f"Sorry: {error}"
            self._dispatch(lambda: self._show(line))
            return
        self._engine = engine
        self._dispatch(lambda: self._start(engine))

    def _start(self, engine: Engine) -> None:
        self._session = engine.session(system="Answer in one or two sentences.", thinking=False)
        self._show("Ask me something")

    def _on_progress(self, progress: LoadProgress) -> None:
        text = f"{progress.stage} {progress.fraction:.0%}"
        self._dispatch(lambda: self._show(text))

    def _on_event(self, event: Event) -> None:
        match event:
            case AnswerDelta():
                self._answer += event.text
                self._show(self._answer + " ...")
            case Done():
                self._show(self._answer)
                if self._session is not None:
                    self._session.prefill_ahead()

    def _on_error(self, error: Exception) -> None:
        self._show(f"Sorry: {error}")
