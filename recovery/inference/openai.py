"""OpenAI's chat completions, as Open WebUI and all that is compatible speak them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recovery.inference.answers import Stop, Usage
from recovery.inference.conversation import Conversation
from recovery.inference.dialect import Malformed, Whole, mapping

_STOPS = {
    "stop": Stop.END,
    "length": Stop.LENGTH,
    "content_filter": Stop.REFUSAL,
    "tool_calls": Stop.TOOL,
    "function_call": Stop.TOOL,
}
DONE = "[DONE]"


def body(said: Conversation, model: str | None, *, stream: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": model,
        "messages": said.messages,
        "max_tokens": said.max_tokens,
        "temperature": said.temperature,
        "top_p": said.top_p,
        "stop": list(said.stop) or None,
    }
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return {name: value for name, value in asked.items() if value is not None}


def whole(decoded: Any) -> Whole:
    """Raises ``Malformed`` where it is no answer."""
    choice = _choice(mapping(decoded))
    if choice is None:
        raise Malformed("there is no choice in it")
    message = mapping(choice.get("message"))
    content = message.get("content")
    reason = choice.get("finish_reason")
    if content is None and reason is None:
        raise Malformed("there is no content in it")
    return Whole(
        text=_text(content) or _text(message.get("refusal")),
        model=str(decoded.get("model") or ""),
        stop=_stop(reason),
        usage=_usage(decoded.get("usage")),
    )


class Stream:
    """Takes one event after the other. Whole once a reason to stop, or the end, was read."""

    def __init__(self) -> None:
        self.is_whole = False
        self.model = ""
        self.stop = Stop.OTHER
        self.usage: Usage | None = None

    def take(self, event: Mapping[str, Any]) -> str:
        """The text that came with it; raises ``Malformed`` where the event tells of a failure."""
        for name in ("error", "detail"):
            if event.get(name):
                raise Malformed("it tells of a failure in the middle")
        self.model = str(event.get("model") or self.model)
        self.usage = _usage(event.get("usage")) or self.usage
        choice = _choice(event)
        if choice is None:
            return ""
        reason = choice.get("finish_reason")
        if reason is not None:
            self.stop, self.is_whole = _stop(reason), True
        delta = choice.get("delta")
        return _text(delta.get("content")) if isinstance(delta, Mapping) else ""

    def end(self) -> None:
        self.is_whole = True


def _choice(decoded: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = decoded.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    return mapping(choices[0])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))
    return ""


def _stop(reason: Any) -> Stop:
    return _STOPS.get(reason, Stop.OTHER) if isinstance(reason, str) else Stop.OTHER


def _usage(told: Any) -> Usage | None:
    if not isinstance(told, Mapping):
        return None
    asked, given = told.get("prompt_tokens"), told.get("completion_tokens")
    if not isinstance(asked, int) or not isinstance(given, int):
        return None
    return Usage(input_tokens=asked, output_tokens=given)
