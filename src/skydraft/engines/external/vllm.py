"""Models that vLLM runs in this process: its batching, its paged KV cache, its quantised and its sharded weights.

A slot is a log of token ids (`external/text_engine`). Between two rounds vLLM keeps what it computed in its prefix
cache, and a round asks about `log + draft` again: what is cached is not computed, all but the last, unfinished block of
the log. Sessions share the cache too: a prompt that many of them begin with is read once.

How rows of logits get out of vLLM decides what a round costs: its interface makes lists of them, number by number.

- Where the largest num_logits of a row matter (a greedy choice, top_k, a rank), a branch of a draft is one request, and
  each row a short list.
- Where all matter (sampling from the whole vocabulary), each row is a request of its own. Asked for the logits of a
  prompt, vLLM would list them for all of the text: after 300 tokens of a vocabulary of 32 000 that took 5 s and 0.8 GB,
  row by row 0.1 s.

Five rows of a vocabulary of 152 064, in seconds of one core without the model's own time: 0.04 of the first kind and
0.45 of the second after 300 tokens, 0.06 and 0.45 after 1500; and 50 MB. So a top_k makes sampling cheap.

The unfinished block is computed again in each request: at most 15 tokens on a GPU, 31 on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from skydraft.engines.external.text_engine import Floats, TextQuestion
from skydraft.errors import EngineError, first_line


class VllmReader:
    """A TextReader on vLLM.

    Args:
        vllm: the package.
        llm: a vllm.LLM with max_logprobs=-1, logprobs_mode="raw_logits" and a prefix cache.
    """

    max_logits = None

    def __init__(self, vllm: ModuleType, llm: Any, vocabulary_size: int, name: str) -> None:
        self._vllm = vllm
        self._llm = llm
        self._vocabulary_size = vocabulary_size
        self._name = name

    def read(self, questions: Sequence[TextQuestion]) -> list[Floats]:
        rows = self._ask([_row_by_row(item) if item.num_logits is None else [item] for item in questions])
        spoiled = [index for index, found in enumerate(rows) if found is None]
        if spoiled:
            again = self._ask([_row_by_row(questions[index]) for index in spoiled])
            for index, found in zip(spoiled, again, strict=True):
                rows[index] = found
        return [found for found in rows if found is not None]

    def _ask(self, split: Sequence[Sequence[TextQuestion]]) -> list[Floats | None]:
        """All rows of each question, which is given in parts; None where vLLM did not compute some of them."""
        parts = [part for question in split for part in question]
        answers = iter([self._rows(part, output) for part, output in zip(parts, self._run(parts), strict=True)])
        return [_joined([next(answers) for _ in question]) for question in split]

    def _run(self, parts: Sequence[TextQuestion]) -> list[Any]:
        """One request for each part: vLLM's outputs, in order."""
        prompts = [self._vllm.TokensPrompt(prompt_token_ids=list(part.token_ids)) for part in parts]
        try:
            outputs = self._llm.generate(prompts, [self._params(part) for part in parts], use_tqdm=False)
        except Exception as error:  # it raises many kinds, and torch's among them
            raise EngineError(f"vLLM cannot read {len(parts)} texts with {self._name}: {first_line(error)}") from error
        return list(outputs[-len(parts) :])  # before them come, after a failure, what was asked then

    def _params(self, part: TextQuestion) -> Any:
        count = -1 if part.num_logits is None else part.num_asked(self._vocabulary_size)
        return self._vllm.SamplingParams(
            max_tokens=1,
            temperature=0,
            detokenize=False,
            logprobs=count,
            prompt_logprobs=count if part.num_rows > 1 else None,
            flat_logprobs=True,
            skip_reading_prefix_cache=False,
        )

    def _rows(self, part: TextQuestion, output: Any) -> Floats | None:
        """float32 [num_rows, vocab_size]; None where some of them were cached, for vLLM has no logits of these."""
        num_before = part.num_rows - 1
        listed = output.prompt_logprobs
        if num_before and (
            listed is None
            or len(listed) <= num_before
            or (output.num_cached_tokens or 0) > len(part.token_ids) - part.num_rows
        ):
            return None
        # From the end: some versions list the prompt's cached tokens, others leave them out.
        before = [self._row(listed, len(listed) - num_before + index) for index in range(num_before)]
        return np.stack([*before, self._row(output.outputs[0].logprobs, 0)])

    def _row(self, listed: Any, index: int) -> Floats:
        first, end = listed.start_indices[index], listed.end_indices[index]
        row = np.full(self._vocabulary_size, -np.inf, dtype=np.float32)
        row[listed.token_ids[first:end]] = listed.logprobs[first:end]
        return row


def _row_by_row(question: TextQuestion) -> list[TextQuestion]:
    """The same question as one for each row."""
    length = len(question.token_ids)
    ends = range(length - question.num_rows + 1, length + 1)
    return [TextQuestion(question.token_ids[:end], 1, question.num_logits) for end in ends]


def _joined(parts: Sequence[Floats | None]) -> Floats | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
