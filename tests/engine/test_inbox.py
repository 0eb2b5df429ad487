"""The inbox of the engine's thread: what is asked too late, and how the thread ends."""

from __future__ import annotations

import os
import threading

from mlx_qwen3.engine.request import Inbox, end_thread


def run_until_the_end(inbox: Inbox) -> None:
    while call := inbox.get(True, None):
        call()


def thread_that_ends(inbox: Inbox) -> threading.Thread:
    thread = threading.Thread(target=run_until_the_end, args=[inbox])
    thread.start()
    return thread


def test_another_thread_that_runs_what_is_left_leaves_the_end() -> None:
    inbox, ran = Inbox(), list[str]()
    inbox.put(lambda: ran.append("before"))
    inbox.put(None)
    inbox.put(lambda: ran.append("after"))
    inbox.run_all()
    assert ran == ["before", "after"]
    thread = thread_that_ends(inbox)
    thread.join(60)
    assert not thread.is_alive()


def test_ending_waits_for_the_thread_unless_what_it_waits_for_is_lost() -> None:
    inbox, lost = Inbox(), threading.Event()
    thread = thread_that_ends(inbox)
    end_thread(inbox, thread, os.getpid(), lost)
    assert not thread.is_alive()

    stuck, released = threading.Event(), threading.Event()

    def get_stuck() -> None:
        stuck.set()
        released.wait(60)

    inbox.put(get_stuck)
    thread = thread_that_ends(inbox)
    assert stuck.wait(60)
    threading.Timer(0.1, lost.set).start()
    end_thread(inbox, thread, os.getpid(), lost)
    assert thread.is_alive()
    released.set()
    thread.join(60)


def test_a_fork_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    inbox = Inbox()
    end_thread(inbox, threading.current_thread(), os.getpid() + 1, threading.Event())
    inbox.put(None)
    assert inbox.get(False, None) is None
