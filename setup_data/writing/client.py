"""Asks an OpenAI-compatible server, many requests at once, through trouble: retries, timeouts, unusable answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import openai

from openrlhf.errors import UserError
from openrlhf.utils.logging import init_logger
from setup_data.progress import Progress
from setup_data.writing.answer_store import Answer, AnswerStore

logger = init_logger("setup_data.writing.client")

T = TypeVar("T")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
RETRY_TEMPERATURE = 0.7
TRANSIENT_STATUS = frozenset([408, 409, 425, 429])
SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)]*(?=\s|$)")


class ServerFailure(UserError):
    """The server cannot be reached, refuses the request or keeps failing."""


class UnusableAnswer(UserError):
    """An answer that does not have the asked-for form."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One request."""

    step: str
    about: str
    """For progress, errors and the store; no part of what is asked."""
    messages: tuple[dict[str, str], ...]
    max_tokens: int
    """Longest answer."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where the model is and how it is asked."""

    url: str
    """The API's root, e.g. http://127.0.0.1:8000/v1."""
    model: str
    api_key: str = "none"
    concurrency: int = 32
    """Requests under way at once."""
    timeout_s: float = 600.0
    """For one request."""
    max_attempts: int = 10
    """For one request, at server trouble; with waits that double to 30 s, some two minutes without a server."""
    max_rejections: int = 4
    """Answers of the wrong form to one request before it is given up."""
    temperature: float = 0.0
    """Of the first try; a try after an answer of the wrong form has RETRY_TEMPERATURE at least."""


def clean_answer(text: str, *, cut_short: bool) -> str:
    """The answer without a reasoning block; one that hit the token limit ends with its last whole sentence."""
    text = re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.DOTALL).strip()
    if cut_short and (ends := list(SENTENCE_END.finditer(text))):
        text = text[: ends[-1].end()]
    return text


async def gather(coroutines: list[Coroutine[Any, Any, T]]) -> list[T]:
    """As asyncio.gather, but the first failure cancels the rest."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def discover_model(settings: ServerSettings) -> tuple[ServerSettings, int | None]:
    """The settings with the model's name filled in, and the model's context where the server tells it.

    Raises:
        ServerFailure: nothing answers there.
        UserError: the model is not there, or none was named and there are several.
    """
    client = openai.AsyncOpenAI(base_url=settings.url, api_key=settings.api_key, max_retries=3, timeout=30.0)
    try:
        page = await client.models.list()
        models = {model.id: model for model in page.data}
    except (openai.OpenAIError, AttributeError, TypeError, json.JSONDecodeError) as error:
        raise ServerFailure(
            f"{settings.url} does not list its models ({error}); check --server_url and the server"
        ) from error
    finally:
        await client.close()
    name = settings.model or (next(iter(models)) if len(models) == 1 else "")
    if name not in models:
        raise UserError(f"--model {name!r}: {settings.url} has {', '.join(map(repr, models))}; name one of them")
    return replace(settings, model=name), getattr(models[name], "max_model_len", None)


class Writer:
    """Answers from the stores, or else from the server."""

    def __init__(self, settings: ServerSettings, stores: dict[str, AnswerStore], *, may_ask: frozenset[str]) -> None:
        self.settings = settings
        self.unusable: dict[str, str] = {}
        """Key -> step of the answers that a default stands in for."""
        self._stores = stores
        self._may_ask = may_ask
        self._client = openai.AsyncOpenAI(
            base_url=settings.url, api_key=settings.api_key, max_retries=0, timeout=settings.timeout_s
        )
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._progress: Progress | None = None

    async def ask(self, prompt: Prompt, parse: Callable[[str], T], *, default: T | None = None) -> T:
        """The parsed answer.

        `parse` raises UnusableAnswer for a text of the wrong form; the request is then made again, at a higher
        temperature. When no try gives a usable answer, `default` is the result, if there is one.

        Raises:
            UnusableAnswer: no try gave a usable answer, and there is no default.
            ServerFailure: the server is gone or refuses.
            UserError: the answer is not stored and belongs to a step that this run is not to ask for.
        """
        key = self._key(prompt)
        progress = self._progress if self._progress and self._progress.step == prompt.step else None
        if progress:
            progress.add()
        answer = self._stores[prompt.step].get(key)
        if answer is None or not _is_still_usable(answer, parse, default):
            answer = await self._share(key, prompt, parse, may_default=default is not None)
            if progress:
                progress.done()
        elif progress:
            progress.skip()
        if not answer.usable and default is not None:
            self.unusable[key] = prompt.step
            return default
        return parse(answer.text)

    async def _share(self, key: str, prompt: Prompt, parse: Callable[[str], T], *, may_default: bool) -> Answer:
        """Makes a request, or waits for the same one that is under way."""
        if prompt.step not in self._may_ask:
            raise UserError(f"{prompt.about}: the step {prompt.step!r} is not finished; run it first")
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._request(key, prompt, parse, may_default=may_default))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await task

    async def _request(self, key: str, prompt: Prompt, parse: Callable[[str], T], *, may_default: bool) -> Answer:
        async with self._slots:
            for rejection in range(self.settings.max_rejections):
                answer = await self._complete(key, prompt, is_retry=rejection > 0)
                if self._progress:
                    self._progress.count(read=answer.prompt_tokens, written=answer.completion_tokens)
                try:
                    parse(answer.text)
                    break
                except UnusableAnswer as error:
                    problem = error
            else:
                if not may_default:
                    raise UnusableAnswer(
                        f"{prompt.about}: none of {self.settings.max_rejections} answers could be used ({problem}); "
                        "the last one begins " + repr(answer.text[:80])
                    )
                answer = Answer(**{**vars(answer), "usable": False})
            await self._stores[prompt.step].put(answer)
            return answer

    async def _complete(self, key: str, prompt: Prompt, *, is_retry: bool) -> Answer:
        """One answer, of whatever form, however often the server has to be asked."""
        problem = ""
        for attempt in range(self.settings.max_attempts):
            if attempt:
                await asyncio.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
            try:
                response = await asyncio.wait_for(self._post(prompt, is_retry=is_retry), self.settings.timeout_s)
                return _read_response(response, key, prompt)
            except TimeoutError:
                problem = f"no answer within {self.settings.timeout_s:g} s"
            except openai.APIConnectionError as error:  # time-outs, too
                problem = f"{type(error).__name__}: {error}"
            except (openai.APIResponseValidationError, _Malformed, json.JSONDecodeError) as error:
                problem = f"malformed response: {error}"
            except openai.APIStatusError as error:
                problem = str(error)
                if error.status_code < 500 and error.status_code not in TRANSIENT_STATUS:
                    raise ServerFailure(
                        f"{prompt.about}: {self.settings.url} refuses the request ({error}); check --model, the "
                        "server's key and --context_tokens"
                    ) from error
        raise ServerFailure(
            f"{prompt.about}: {self.settings.url} failed {self.settings.max_attempts} times, last with "
            f"{problem[:200]!r}; check the server and run the same command again: all answers so far are kept"
        )

    async def _post(self, prompt: Prompt, *, is_retry: bool) -> Any:
        # No seed: with one, vLLM 0.32 on the CPU dies at a prompt that is prefilled in parts.
        temperature = self.settings.temperature
        return await self._client.chat.completions.create(
            model=self.settings.model,
            messages=list(prompt.messages),  # type: ignore[arg-type]
            max_tokens=prompt.max_tokens,
            temperature=max(temperature, RETRY_TEMPERATURE) if is_retry else temperature,
        )

    def _key(self, prompt: Prompt) -> str:
        request = [self.settings.model, self.settings.temperature, prompt.max_tokens, *prompt.messages]
        return hashlib.sha256(json.dumps(request, ensure_ascii=False, sort_keys=True).encode()).hexdigest()

    @contextmanager
    def show_progress(self, step: str) -> Iterator[None]:
        """A bar, or lines, of the requests made within the context."""
        with closing(Progress(step, unit="answer")) as self._progress:
            yield
        self._progress = None

    async def close(self) -> None:
        await self._client.close()


def _is_still_usable(answer: Answer, parse: Callable[[str], T], default: T | None) -> bool:
    """False for a kept answer that today's parser does not take (it, or the book, was changed since)."""
    if not answer.usable:
        return default is not None
    try:
        parse(answer.text)
    except UnusableAnswer:
        return False
    return True


class _Malformed(ValueError):
    """A response that lacks what the API promises."""


def _read_response(response: Any, key: str, prompt: Prompt) -> Answer:
    """Raises _Malformed for a body that is no chat completion. Servers are free to send anything with status 200."""
    choices = getattr(response, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None or not isinstance(message.content, str | None):
        raise _Malformed(f"no choices[0].message.content in {str(response)[:80]!r}")
    usage = getattr(response, "usage", None)
    return Answer(
        key=key,
        about=prompt.about,
        text=clean_answer(message.content or "", cut_short=getattr(choice, "finish_reason", None) == "length"),
        usable=True,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )
