"""vLLM's CPU engine serves requests of a lower priority value first where it is told to."""

import asyncio

import httpx
import pytest

from blockwise.serving.server import managed_server
from serving_fixtures import NAME, tiny_backbone

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]

LATER = 5


async def order_of_answers(server):
    """One request occupies the engine while three of a later and three of a sooner turn queue."""
    order = []
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with httpx.AsyncClient(timeout=600, headers=headers) as client:

        async def ask(name, num_tokens, priority=0):
            message = {"role": "user", "content": f"{name} asks for {name}."}  # nothing is cached
            body = {
                "model": server.served_model,
                "messages": [message],
                "max_tokens": num_tokens,
                "min_tokens": num_tokens,
                "ignore_eos": True,
                "priority": priority,
            }
            answer = await client.post(f"{server.base_url}/chat/completions", json=body)
            answer.raise_for_status()
            order.append(name)

        occupant = asyncio.create_task(ask("occupant", 7000))
        await asyncio.sleep(0.5)
        waiting = []
        for name, priority in (("later", LATER), ("sooner", 0)):
            for number in range(3):
                waiting.append(asyncio.create_task(ask(f"{name} {number}", 200, priority)))
                await asyncio.sleep(0.1)
        await asyncio.gather(occupant, *waiting)
    return order


@pytest.mark.parametrize(("policy", "first"), [("priority", "sooner"), ("fcfs", "later")])
def test_the_cpu_engine_schedules_as_it_is_told(tiny_model, tmp_path, policy, first):
    backbone = tiny_backbone()
    arguments = {**backbone.engine.arguments, "scheduling-policy": policy, "max-num-seqs": 1}
    engine = backbone.engine.model_copy(update={"arguments": arguments})
    backbone = backbone.model_copy(update={"engine": engine})
    with managed_server(NAME, backbone, tiny_model, tmp_path / "server.log", print) as server:
        order = asyncio.run(order_of_answers(server))
    assert order[0] == "occupant"
    assert [name.split()[0] for name in order[1:4]] == [first] * 3
