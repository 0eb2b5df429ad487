"""A menu-bar assistant for macOS: type a question and read the answer while it is generated.

    pip install rumps
    python examples/menu_bar.py [model]

`Assistant` does not depend on the user interface, so the tests run it everywhere. Only `main` needs a Mac.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from mlx_qwen3 import Engine, Qwen3Error
from mlx_qwen3.events import AnswerDelta, Done, Event

Dispatch = Callable[[Callable[[], object]], object]


class Assistant:
    """One conversation. `show` is called on the user interface's thread with the text to display."""

    def __init__(self, model: str, show: Callable[[str], None], dispatch: Dispatch):
        """dispatch: runs a function on the user interface's thread (PyObjC: `AppHelper.callAfter`)."""
        self._engine = Engine(model)
        self._session = self._engine.session(system="Answer in one or two sentences.", thinking=False)
        self._show = show
        self._dispatch = dispatch
        self._answer = ""

    def ask(self, question: str) -> None:
        """Send the question and return at once. The answer arrives through `show`."""
        self._answer = ""
        try:
            self._session.post(question, self._on_event, on_error=self._on_error, dispatch=self._dispatch)
        except Qwen3Error as error:
            self._on_error(error)

    def stop(self) -> None:
        """Stop the current answer. The text so far is kept."""
        self._session.cancel()

    def close(self) -> None:
        self._engine.close()

    def _on_event(self, event: Event) -> None:
        match event:
            case AnswerDelta():
                self._answer += event.text
                self._show(self._answer + " ...")
            case Done():
                self._show(self._answer)
                self._session.prepare()

    def _on_error(self, error: Exception) -> None:
        self._show(f"Sorry: {error}")


def main() -> None:
    import rumps  # type: ignore[import-not-found]
    from PyObjCTools import AppHelper  # type: ignore[import-not-found]

    class MenuBar(rumps.App):
        def __init__(self) -> None:
            super().__init__("Qwen3", quit_button=None)
            model = sys.argv[1] if len(sys.argv) > 1 else "demo"
            self.answer = rumps.MenuItem("Ask me something")
            self.menu = ["Ask ...", "Stop", None, self.answer, None, "Quit"]
            self.assistant = Assistant(model, self.show, AppHelper.callAfter)

        def show(self, text: str) -> None:
            self.answer.title = text

        @rumps.clicked("Ask ...")
        def ask(self, _: object) -> None:
            window = rumps.Window("What would you like to know?", "Qwen3", cancel=True).run()
            if window.clicked and window.text.strip():
                self.assistant.ask(window.text)

        @rumps.clicked("Stop")
        def stop(self, _: object) -> None:
            self.assistant.stop()

        @rumps.clicked("Quit")
        def quit(self, _: object) -> None:
            self.assistant.close()
            rumps.quit_application()

    MenuBar().run()


if __name__ == "__main__":
    main()
