"""One line for any pair of models, as people know it from Hugging Face's `pipeline`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, TypedDict, Unpack

from skydraft.client.options import ClientOptions, TextOptions
from skydraft.client.sync_client import Client
from skydraft.errors import ConfigError

TASKS = ("text-generation",)


class Generated(TypedDict):
    """generated_text: the prompt and what follows it."""

    generated_text: str


class TextGeneration:
    """What `pipeline` gives: call it with a prompt, or with several, which are then written at once.

    Its models stay loaded until `close`, or the end of a `with` block.
    """

    def __init__(self, client: Client) -> None:
        self._client = client.__enter__()

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int | None = None,
        return_full_text: bool = True,
        **options: Unpack[TextOptions],
    ) -> list[Generated]:
        """Returns, for each prompt in order, the prompt and its continuation; errors as `AsyncClient.generate`.

        Args:
            return_full_text: with the prompt.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if max_new_tokens is not None:
            options["max_tokens"] = max_new_tokens
        options.setdefault("raw", True)
        reports = self._client.generate_many(prompts, **options)
        texts = zip(prompts, reports, strict=True)
        return [Generated(generated_text=(said if return_full_text else "") + report.text) for said, report in texts]

    def __enter__(self) -> TextGeneration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.__exit__(None, None, None)


def pipeline(
    task: Literal["text-generation"], model: str, assistant_model: str, **options: Unpack[ClientOptions]
) -> TextGeneration:
    """A pair of models, ready to be called, with a cloud on this machine or, with `cloud=URL`, one that runs.

        pipe = pipeline("text-generation", model="LARGE", assistant_model="SMALL")
        print(pipe("Once upon a time,", max_new_tokens=50)[0]["generated_text"])

    Args:
        model: the large one, which the text is of. assistant_model: the small one, which drafts. Both as `skydraft
            generate` takes them.
    Raises:
        SkydraftError: as `AsyncClient.__aenter__`.
    """
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; expected one of {', '.join(TASKS)}")
    options["draft"] = assistant_model
    if options.get("cloud") is None:
        options["target"] = model
    return TextGeneration(Client(**options))
