"""A road dies under a live load: nobody is lost whom the other road could serve."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import recovery.client
from recovery import degraded
from recovery.client.listener import LISTENER
from recovery.inference import AsyncClient, Client, NoAnswer, Road
from tests.fleet import ROOT
from tests.inference.conftest import PATIENT, QUESTION, Askers, Stage
from tests.inference.test_failures import events
from tests.servers import RedisServer
from tests.upstreams import ANSWER
from tests.waiting import until

CALLERS = 20


@pytest.mark.kill
def test_threads_lose_no_request_when_openwebui_is_killed_and_comes_back(stage: Stage) -> None:
    client, stop = Client(limits=PATIENT), threading.Event()
    answers: list[Road] = []

    def ask(number: int) -> None:
        while not stop.is_set():
            if number % 4:
                answer = client.chat(QUESTION)
            else:
                with client.stream(QUESTION) as stream:
                    list(stream)
                answer = stream.answer
            assert answer.text.strip() == ANSWER
            answers.append(answer.road)

    def goes_on_by(road: Road) -> None:
        known = len(answers)
        until(lambda: road in answers[known:], seconds=60, what=f"answers by {road}")

    with ThreadPoolExecutor(CALLERS) as callers:
        running = [callers.submit(ask, number) for number in range(CALLERS)]
        goes_on_by(Road.OPENWEBUI)
        stage.openwebui.kill()
        goes_on_by(Road.DIRECT)
        stage.openwebui.start()
        goes_on_by(Road.OPENWEBUI)
        stop.set()
        for one in running:
            # A stream whose beginning was handed out cannot be begun again: that one may break.
            error = one.exception()
            assert error is None or "broke off" in str(error)
    client.close()
    assert len(events(stage)) <= 1


@pytest.mark.kill
def test_tasks_lose_no_request_when_openwebui_is_killed(stage: Stage) -> None:
    async def load() -> list[Road]:
        async with AsyncClient(limits=PATIENT) as client:
            stop, roads = asyncio.Event(), []

            async def ask() -> None:
                while not stop.is_set():
                    answer = await client.chat(QUESTION)
                    assert answer.text == ANSWER
                    roads.append(answer.road)

            tasks = [asyncio.create_task(ask()) for _ in range(CALLERS)]
            await _until(lambda: len(roads) > CALLERS)
            await asyncio.to_thread(stage.openwebui.kill)
            await _until(lambda: roads.count(Road.DIRECT) > CALLERS)
            stop.set()
            await asyncio.gather(*tasks)
            return roads

    assert set(asyncio.run(load())) == {Road.OPENWEBUI, Road.DIRECT}


async def _until(condition: object) -> None:
    await asyncio.to_thread(until, condition, seconds=60)


@pytest.mark.kill
def test_a_thousand_failing_requests_are_one_event_and_one_line(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "recovery.inference")
    stage.openwebui.kill()
    stage.anthropic.kill()

    with Client(limits=PATIENT) as client, ThreadPoolExecutor(8) as callers:

        def fails(_: int) -> bool:
            try:
                client.chat(QUESTION)
            except NoAnswer:
                return True
            return False

        assert all(callers.map(fails, range(1000)))

    until(lambda: events(stage), seconds=40)
    assert events(stage) == ["service_unavailable"]
    assert len([one for one in caplog.records if one.name == "recovery.inference"]) == 1


@pytest.mark.kill
def test_the_last_route_holds_while_the_control_plane_is_away(
    stage: Stage, asker: Askers, control_redis: RedisServer
) -> None:
    ours = asker()
    assert ours.chat(QUESTION).road is Road.OPENWEBUI
    control_redis.kill()
    until(lambda: LISTENER.is_away, seconds=40)

    assert ours.chat(QUESTION).road is Road.OPENWEBUI
    assert degraded.may_use("model_switching")
    stage.openwebui.kill()
    assert ours.chat(QUESTION).road is Road.DIRECT

    until(lambda: not degraded.may_use("model_switching"), seconds=40)
    (mode,) = degraded.modes()
    assert (mode.mode, mode.is_own) == ("openwebui_unavailable", True)
    stage.openwebui.start()
    until(lambda: ours.chat(QUESTION).road is Road.OPENWEBUI, seconds=60)
    until(lambda: degraded.may_use("model_switching"), seconds=40)


def test_the_environment_is_enough_where_there_is_no_control_plane(
    alone: None, stage: Stage, asker: Askers, environ: pytest.MonkeyPatch
) -> None:
    recovery.client.stop()
    environ.setenv("RECOVERY_CLIENT", "off")
    environ.setenv("RECOVERY_OPENWEBUI_URL", stage.openwebui.url)
    environ.setenv("RECOVERY_OPENWEBUI_TOKEN", stage.openwebui.token())
    environ.setenv("RECOVERY_OPENWEBUI_MODEL", "llama-3")
    assert asker().chat(QUESTION).road is Road.OPENWEBUI
    environ.setenv("RECOVERY_DIRECT_MODEL", "claude-test")
    environ.setenv("RECOVERY_DIRECT_URL", stage.anthropic.url)
    stage.openwebui.kill()

    assert asker().chat(QUESTION).road is Road.DIRECT


FORKING = """
import os, sys, threading
from recovery import inference

def ask():
    return inference.chat("Hello?").road.value

roads = [ask()]
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if [ask() for _ in range(3)] == ["openwebui"] * 3 else 1)
    children.append(child)
for thread in threads: thread.join()
states = [os.waitpid(child, 0)[1] for child in children]
print(ask(), *states)
"""


def test_forked_children_ask_by_connections_of_their_own(stage: Stage) -> None:
    environ = {**os.environ, "RECOVERY_REDIS_URL": stage.redis.url}
    said = subprocess.check_output(
        [sys.executable, "-W", "ignore", "-c", FORKING], cwd=ROOT, env=environ, text=True
    )

    assert said.split() == ["openwebui", "0", "0", "0"]


def test_the_example_prints_an_answer_by_either_road(stage: Stage) -> None:
    environ = {**os.environ, "RECOVERY_REDIS_URL": stage.redis.url}
    command = [sys.executable, "examples/inference/ask.py", QUESTION]

    def prints() -> str:
        return subprocess.check_output(command, cwd=ROOT, env=environ, text=True).strip()

    assert prints() == ANSWER
    stage.openwebui.kill()
    said = prints()
    assert said.startswith(ANSWER)
    assert said.endswith("[not by Open WebUI]")


def test_one_client_serves_one_event_loop_after_the_other(stage: Stage) -> None:
    client = AsyncClient(limits=PATIENT)

    async def ask() -> str:
        answer = await client.chat(QUESTION)
        await client.aclose()
        return answer.text

    assert [asyncio.run(ask()) for _ in range(3)] == [ANSWER] * 3


def test_a_cancelled_caller_is_cancelled_and_the_road_is_not_blamed(stage: Stage) -> None:
    stage.openwebui.modes["/api/chat/completions"] = "hang"

    async def ask() -> None:
        async with AsyncClient(limits=PATIENT) as client:
            task = asyncio.create_task(client.chat(QUESTION))
            await _until(lambda: "POST /api/chat/completions" in stage.openwebui.requests)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client._roads.health.may_try(Road.OPENWEBUI)

    asyncio.run(ask())
    assert stage.anthropic.requests == []


def test_the_import_brings_httpx_along_and_nothing_heavier() -> None:
    program = (
        "import sys, threading, recovery.inference\n"
        "heavy = {'celery', 'kombu', 'pydantic', 'yaml', 'redis', 'structlog', 'cryptography'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    said = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)

    assert said.strip() == "[] 1"
