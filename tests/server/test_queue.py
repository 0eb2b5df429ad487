"""The fair queue: nobody starves, nothing is lost, and a full queue says when to come back."""

from __future__ import annotations

import random

import pytest

from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.queue import FairQueue, Ticket


def enter(queue: FairQueue, key: str, began: list[str]) -> Ticket:
    return queue.enter(key, lambda: began.append(key))


def test_a_client_with_one_request_does_not_wait_behind_a_hundred_of_another() -> None:
    queue, began = FairQueue(2, 1000, 1000), []
    greedy = [enter(queue, "greedy", began) for _ in range(100)]
    modest = enter(queue, "modest", began)
    assert began == ["greedy", "greedy"]
    greedy[0].release()
    assert began[-1] == "modest"
    modest.release()
    assert began[-1] == "greedy"


def test_keys_that_run_alike_take_turns() -> None:
    queue, began = FairQueue(1, 100, 100), []
    tickets = [enter(queue, key, began) for key in "aaabbbccc"]
    for _ in range(len(tickets)):
        next(ticket for ticket in tickets if ticket.is_running and not ticket.is_over).release()
    assert sorted(began) == sorted("aaabbbccc")
    assert began == list("abcabcabc")


def test_a_full_queue_says_429_and_when_to_come_back() -> None:
    queue, began = FairQueue(1, 3, 2), []
    for _ in range(3):
        enter(queue, "a", began)
    with pytest.raises(RequestError) as caught:
        queue.check("a")
    assert caught.value.status == 429
    assert 1 <= (caught.value.retry_after or 0) <= 300
    queue.check("b")
    enter(queue, "b", began)
    with pytest.raises(RequestError):
        queue.check("c")


def test_random_comings_and_goings_lose_nothing() -> None:
    draw = random.Random(1)
    queue, began = FairQueue(4, 10**6, 10**6), []
    tickets: list[Ticket] = []
    for _ in range(2000):
        if draw.random() < 0.55 or not tickets:
            tickets.append(enter(queue, draw.choice("abcde"), began))
        else:
            ticket = tickets.pop(draw.randrange(len(tickets)))
            ticket.release(draw.random())
            ticket.release()
        assert queue.running <= 4
        assert queue.running == 4 or not queue.waiting
        assert queue.running + queue.waiting == len(tickets)
    while tickets:
        tickets.pop().release()
    assert (queue.running, queue.waiting) == (0, 0)
