"""Ask the stack's model a question, and keep the answer coming while Open WebUI is away.

    RECOVERY_REDIS_URL=redis://control:6379/0 \
    RECOVERY_SECRET_KEY_FILE=/etc/recovery/secret.key ANTHROPIC_API_KEY=… \
    python examples/inference/ask.py "Why is the sky blue?"
"""

from __future__ import annotations

import sys

from recovery import degraded, inference


def main() -> None:
    question = " ".join(sys.argv[1:]) or "Why is the sky blue?"
    with inference.stream(question, system="Answer in one sentence.") as answer:
        for text in answer:
            print(text, end="", flush=True)
    by = "" if answer.answer.road is inference.Road.OPENWEBUI else "  [not by Open WebUI]"
    print(by)
    if not degraded.may_use("multi_model_consensus"):
        print("Open WebUI is away: one model answers until it is back.", file=sys.stderr)


if __name__ == "__main__":
    main()
