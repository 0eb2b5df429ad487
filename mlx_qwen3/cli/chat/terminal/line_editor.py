"""The line editor: multi-line input, history across runs, completion and a status line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, get_app, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, is_searching, to_filter
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.output import Output
from prompt_toolkit.search import accept_search
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

from mlx_qwen3.cli.chat.saved_conversations import data_folder
from mlx_qwen3.cli.chat.terminal.pasted import Pasted, is_complete, without_quotes
from mlx_qwen3.cli.chat.terminal.region import reflows, wrapped_rows
from mlx_qwen3.cli.chat.terminal.tty import stop_program
from mlx_qwen3.cli.chat.terminal.turns import ThoughtsPanel
from mlx_qwen3.cli.output import printable, printable_characters

TOOLBAR_INTERVAL = 0.5  # seconds between looks at the toolbar, which changes while the engine prefills
PROMPT, EDIT_PROMPT = "> ", "edit> "
# Of the terminal's own colours, so that it fits any theme.
STYLE = Style.from_dict(
    {
        "prompt": "ansicyan bold",
        "thoughts": "italic fg:ansibrightblack",
        "bottom-toolbar": "noreverse fg:ansibrightblack bg:default",
        "completion-menu": "noreverse bg:default fg:default",
        "completion-menu.completion": "bg:default fg:default",
        "completion-menu.completion.current": "noreverse bold fg:ansicyan bg:default",
        "completion-menu.meta.completion": "bg:default fg:ansibrightblack",
        "completion-menu.meta.completion.current": "noreverse bg:default fg:ansicyan",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:default",
    }
)


class ChatCompleter(Completer):
    """Completes slash commands and the arguments of some of them.

    commands: each command and its summary. choices: for a command, lists the possible arguments.
    """

    def __init__(self, commands: Mapping[str, str], choices: dict[str, Callable[[], Iterable[str]]]):
        self._commands = commands
        self._choices = choices
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text.partition(" ")
        if not space:
            for command, summary in self._commands.items():
                if command.startswith(name):
                    yield Completion(command, start_position=-len(name), display_meta=summary)
            return
        if name == "/file":
            for path in self._paths.get_completions(Document(argument), complete_event):
                yield Completion(path.text, path.start_position, printable(path.display_text))
        for word in self._choices.get(name, list)():
            if word.startswith(argument):
                yield Completion(word, start_position=-len(argument))


class HiddenCharacters(Processor):
    """Shows each character that a terminal could obey, or would not show, as a replacement character.

    The text itself stays as it is: it may be an earlier message, or a prompt of a server.
    """

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        fragments = transformation_input.fragments
        # Joiners of an emoji are judged by what is beside them, which may be in another fragment.
        shown = iter(printable_characters("".join(item[1] for item in fragments)))
        return Transformation(
            [(item[0], "".join(next(shown) or "\ufffd" for _ in item[1])) for item in fragments]
        )


class LineEditor:
    """Reads messages: Enter sends, Esc Enter starts a new line, Ctrl-O shows the thinking or hides it.

    On a capable terminal the line is gone once it is sent; the chat prints what was said.
    """

    def __init__(self, completer: Completer, toolbar: Callable[[], str], panel: ThoughtsPanel):
        self._toolbar, self._panel = toolbar, panel
        self._is_editing = False
        self.is_interrupted = False
        """Whether Ctrl-C was pressed after Enter, before `read` returned."""
        self.pasted = Pasted()
        self.history = _history(self.pasted)
        bindings = _bindings(panel, lambda: not self._is_editing, self._interrupt, self.pasted)
        self._prompt: PromptSession[str] = PromptSession(
            history=self.history,
            key_bindings=bindings,
            multiline=True,
            completer=completer,
            complete_while_typing=Condition(lambda: _may_be_command(get_app().current_buffer.text)),
            bottom_toolbar=toolbar,
            input_processors=[HiddenCharacters()],
            enable_open_in_editor=True,
            style=STYLE,
            erase_when_done=not is_dumb_terminal(),
        )
        _erase_what_wrapped(self._prompt.app)
        # The status line stands right below the text and not at the end of the screen.
        for window in self._prompt.layout.find_all_windows():
            if window.content is self._prompt.layout.current_control:
                window.dont_extend_height = to_filter(True)
        self.input: Input = self._prompt.input
        self.output: Output = self._prompt.output

    def read(
        self, draft: str = "", is_editing: bool = False, when_drawn: Callable[[], object] = lambda: None
    ) -> str:
        """The text the user sends.

        draft: the text the line starts with. is_editing: the user changes an earlier message. when_drawn:
        called once the prompt is on the screen. Raises EOFError for Ctrl-D, and KeyboardInterrupt for Ctrl-C
        on an empty line or while editing; otherwise Ctrl-C clears the line.
        """
        self._is_editing, self.is_interrupted = is_editing, False
        if is_dumb_terminal():  # there the toolkit runs nothing beside the prompt
            when_drawn()
        text = self._prompt.prompt(
            self._prompt_text,
            default=self.pasted.collapse(draft),
            pre_run=lambda: self._watch_toolbar(when_drawn),
        )
        self._panel.close()
        return without_quotes(self.pasted.expand(text))

    def _prompt_text(self) -> StyleAndTextTuples:
        """What stands before the line: above it the thinking, if the user wants to see it."""
        shown: StyleAndTextTuples = [("class:thoughts", f"{line}\n") for line in self._panel.lines()]
        return [*shown, ("class:prompt", EDIT_PROMPT if self._is_editing else PROMPT)]

    def end(self) -> bool:
        """End `read`, if it is reading now, as Ctrl-D does. Returns whether it is. From a signal handler."""
        app = self._prompt.app
        if not app.is_running or app.loop is None:
            return False
        app.loop.call_soon_threadsafe(lambda: app.is_done or app.exit(exception=EOFError()))
        return True

    def _interrupt(self, event: KeyPressEvent) -> None:
        """Handle SIGINT. The terminal sends it while it is not in raw mode: just before or after a prompt."""
        if event.app.future is None or event.app.is_done:
            self.is_interrupted = True
        else:
            event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")

    def _watch_toolbar(self, when_drawn: Callable[[], object]) -> None:
        get_app().create_background_task(self._redraw_toolbar(when_drawn))

    async def _redraw_toolbar(self, when_drawn: Callable[[], object]) -> None:
        when_drawn()  # a task begins after the first drawing
        drawn = self._toolbar()
        while True:
            await asyncio.sleep(TOOLBAR_INTERVAL)
            if (current := self._toolbar()) != drawn:
                drawn = current
                get_app().invalidate()


def _erase_what_wrapped(app: Application[str]) -> None:
    """Have a prompt in a window that became narrower be drawn over the old one.

    The terminal has wrapped the lines above the cursor by then. The toolkit counts them as they were drawn,
    and would leave a copy of those.
    """
    on_resize = app._on_resize

    def resize() -> None:
        screen, columns = app.renderer.last_rendered_screen, app.output.get_size().columns
        if screen is not None and reflows():
            cursor = screen.get_cursor_position(app.layout.current_window)
            above = [_used_width(screen.data_buffer[row]) for row in range(cursor.y)]
            app.output.cursor_up(wrapped_rows(above, columns) - cursor.y + cursor.x // columns)
        on_resize()

    app._on_resize = resize  # type: ignore[method-assign]


def _used_width(row: Mapping[int, Char]) -> int:
    """Columns of a drawn row, without the spaces at its end."""
    return max((column + char.width for column, char in row.items() if char.char.strip()), default=0)


def _may_be_command(text: str) -> bool:
    return text.startswith("/") and " " not in text


def _bindings(
    panel: ThoughtsPanel,
    may_clear: Callable[[], bool],
    interrupt: Callable[[KeyPressEvent], None],
    pasted: Pasted,
) -> KeyBindings:
    bindings = KeyBindings()
    bindings.add("<sigint>")(interrupt)
    pasted.bind(bindings)

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\" and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif is_complete(buffer.text):
            buffer.text = pasted.expand(buffer.text)  # for the history
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @bindings.add("enter", filter=is_searching)
    def accept(event: KeyPressEvent) -> None:
        """As in a shell, Enter sends what Ctrl-R has found."""
        accept_search()
        send(event)

    @bindings.add("escape", "enter")
    @bindings.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c", filter=Condition(lambda: may_clear() and bool(get_app().current_buffer.text)))
    def clear(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    @bindings.add("c-z")
    def stop(event: KeyPressEvent) -> None:  # noqa: ARG001  # the toolkit's API
        run_in_terminal(stop_program)

    @bindings.add("c-o")
    def thoughts(event: KeyPressEvent) -> None:  # noqa: ARG001  # the toolkit's API
        panel.toggle()

    for key, pages in (("pageup", -1), ("pagedown", 1)):
        bindings.add(key, filter=Condition(lambda: panel.is_open))(_turning(panel, pages))

    return bindings


def _turning(panel: ThoughtsPanel, pages: int) -> Callable[[KeyPressEvent], None]:
    return lambda event: panel.turn_page(pages)  # noqa: ARG005  # the toolkit's API


class _History(FileHistory):
    """A history file, which shows long texts as words. What cannot be written is missing in later chats."""

    def __init__(self, path: str, pasted: Pasted):
        super().__init__(path)
        self._pasted = pasted

    def load_history_strings(self) -> Iterable[str]:
        for text in super().load_history_strings():
            yield self._pasted.shown(text)

    def append_string(self, string: str) -> None:
        self._loaded_strings.insert(0, self._pasted.shown(string))
        self.store_string(string)

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def _history(pasted: Pasted) -> History:
    """The history file, which only its user can read; in memory where there can be none."""
    folder = data_folder()
    path: Any = folder / "history"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        path.read_bytes()
    except OSError:
        return InMemoryHistory()
    return _History(str(path), pasted)
