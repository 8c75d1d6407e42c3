"""The agent: asks a model what the task's input says, and answers its text and what it cost."""

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

import openai
from openai.types.chat import ChatCompletionMessageParam

from orchestration_agent import Task, TaskFailed

MODEL_VARIABLE: Final = "LANGUAGE_MODEL"
BASE_URL_VARIABLE: Final = "OPENAI_BASE_URL"
KEY_FILE_VARIABLE: Final = "OPENAI_API_KEY_FILE"
"""The key comes from a file: a catalogue names it, and holds no secret itself."""

NO_KEY: Final = "none"
"""Local servers ask for none, but the client does."""

CALL_SECONDS_MAX: Final = 120.0
TOKENS_MAX: Final = 1_024


async def ask(task: Task) -> dict[str, Any]:
    """`task.input`: `system` (optional), `prompt`. Retries are the engine's, so that they show in the audit log."""
    try:
        completion = await _client().chat.completions.create(
            model=os.environ[MODEL_VARIABLE],
            messages=messages_of(task),
            temperature=0,
            max_tokens=TOKENS_MAX,
            timeout=min(task.timeout_seconds or CALL_SECONDS_MAX, CALL_SECONDS_MAX),
        )
    except (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError) as error:
        raise TaskFailed(_said(error), code="MODEL_UNAVAILABLE", retryable=True) from error
    except openai.APIError as error:
        raise TaskFailed(_said(error), code="MODEL_REFUSED") from error
    choice = completion.choices[0] if completion.choices else None
    if choice is None or not choice.message.content:
        raise TaskFailed("the model answered nothing", code="MODEL_SILENT", retryable=True)
    usage = completion.usage
    return {
        "text": choice.message.content,
        "model": completion.model,
        "complete": choice.finish_reason == "stop",
        "tokens": 0 if usage is None else usage.total_tokens,
    }


def messages_of(task: Task) -> list[ChatCompletionMessageParam]:
    """The instruction, the execution's subject, what was written before, and what the pattern tells."""
    prompt = task.input.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise TaskFailed("the task's input has no `prompt`", code="NO_PROMPT")
    parts = [prompt]
    if "subject" in task.execution_input:
        parts.append(f"Subject: {task.execution_input['subject']}")
    for task_id in sorted(task.results):
        written = task.results[task_id]
        text = written.get("text") if isinstance(written, dict) else written
        parts.append(f"From {task_id}:\n{text}")
    if task.context is not None:
        parts.append(f"Remarks on your last answer: {task.context}")
    messages: list[ChatCompletionMessageParam] = []
    if system := task.input.get("system"):
        messages.append({"role": "system", "content": str(system)})
    messages.append({"role": "user", "content": "\n\n".join(parts)})
    return messages


@cache
def _client() -> openai.AsyncOpenAI:
    """One a process. It makes no attempts of its own."""
    key_file = os.environ.get(KEY_FILE_VARIABLE)
    key = Path(key_file).read_text(encoding="utf-8").strip() if key_file else NO_KEY
    return openai.AsyncOpenAI(base_url=os.environ[BASE_URL_VARIABLE], api_key=key, max_retries=0)


def _said(error: openai.APIError) -> str:
    """Without the request, in which the key stands."""
    status = getattr(error, "status_code", None)
    return f"{type(error).__name__}{f' {status}' if status else ''}: {error.message}"[:500]
