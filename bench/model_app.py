"""A model server that costs next to nothing: ``model_app PORT SECONDS``, SECONDS for each answer.

It answers as Open WebUI and as Anthropic's Messages API, each on its own path.
"""

from __future__ import annotations

import asyncio
import json
import sys

TEXT = "Paris is the capital of France."
OPENAI = {
    "model": "bench",
    "choices": [{"message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 7},
}
ANTHROPIC = {
    "model": "bench",
    "content": [{"type": "text", "text": TEXT}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 7},
}
ANSWERS = {"/api/chat/completions": OPENAI, "/v1/messages": ANTHROPIC, "/health": {"status": True}}


def encoded(answer: object) -> bytes:
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


READY = {path.encode(): encoded(answer) for path, answer in ANSWERS.items()}


async def serve(port: int, seconds: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(length_of(head))
                if seconds:
                    await asyncio.sleep(seconds)
                writer.write(READY[head.split(b" ", 2)[1]])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def length_of(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
