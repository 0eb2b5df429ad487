"""A menu-bar assistant for macOS: type a question and read the answer while it is generated.

    pip install rumps
    cd examples && python -m menu_bar [model]

`examples/pyproject.toml` makes an app of it.
"""

from __future__ import annotations

import sys

from menu_bar import Assistant


def main() -> None:
    import rumps  # type: ignore[import-not-found]
    from PyObjCTools import AppHelper  # type: ignore[import-not-found]

    class MenuBar(rumps.App):
        def __init__(self) -> None:
            super().__init__("Qwen3", quit_button=None)
            model = sys.argv[1] if len(sys.argv) > 1 else "demo"
            self.answer = rumps.MenuItem("Loading ...")
            self.menu = ["Ask ...", "Stop", "Free the memory", None, self.answer, None, "Quit"]
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

        @rumps.clicked("Free the memory")
        def sleep(self, _: object) -> None:
            self.assistant.sleep()

        @rumps.clicked("Quit")
        def quit(self, _: object) -> None:
            self.assistant.close()
            rumps.quit_application()

    MenuBar().run()


if __name__ == "__main__":
    main()
