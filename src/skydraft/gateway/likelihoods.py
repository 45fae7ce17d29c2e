"""Log-probabilities of a text's tokens, as OpenAI has them: for chats, and for bare completions."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from skydraft.core import Token
from skydraft.text.tokenizer import Tokenizer

JsonFields = dict[str, object]


def of_chat(tokens: Iterable[Token], tokenizer: Tokenizer) -> JsonFields | None:
    """None where the target judged none of them."""
    content = [
        {
            **_entry(tokenizer, token.token_id, token.logprobs.logprob),
            "top_logprobs": [_entry(tokenizer, *each) for each in token.logprobs.top],
        }
        for token in tokens
        if token.logprobs is not None
    ]
    return {"content": content, "refusal": None} if content else None


def of_completion(tokens: Iterable[Token], tokenizer: Tokenizer) -> JsonFields | None:
    """None where the target judged none of them."""
    judged = [(token, token.logprobs) for token in tokens if token.logprobs is not None]
    if not judged:
        return None
    texts = [tokenizer.decode((token.token_id,)) for token, _ in judged]
    return {
        "tokens": texts,
        "token_logprobs": [logprobs.logprob for _, logprobs in judged],
        "top_logprobs": [
            {tokenizer.decode((token_id,)): logprob for token_id, logprob in logprobs.top} for _, logprobs in judged
        ],
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=0)),
    }


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> JsonFields:
    text = tokenizer.decode((token_id,))
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
