"""How large anything on the wire may be.

The constants are part of the protocol: both sides refuse what is above them, before it is allocated. `FrameLimits` is
what one side takes beyond that, and depends on its machine.
"""

from __future__ import annotations

import msgspec

from skydraft.core.grammar import MAX_GRAMMAR_CHARS as MAX_GRAMMAR_CHARS
from skydraft.core.text import MAX_BIASED_IDS as MAX_BIASED_IDS
from skydraft.core.text import MAX_END_IDS as MAX_END_IDS
from skydraft.core.text import MAX_STOP_CHARS as MAX_STOP_CHARS
from skydraft.core.text import MAX_STOPS as MAX_STOPS
from skydraft.core.text import MAX_VOCABULARY as MAX_VOCABULARY

MAX_TEXT_TOKENS = 2**20  # of one session's text: positions are 0 to this
MAX_DRAFT_TOKENS = 4096  # nodes of one offer that are not forced, whatever a cloud announces
MAX_IN_FLIGHT = 64  # offers of one session without an answer, whatever a cloud announces
MAX_SESSION = 2**31 - 1  # number of a session within its connection
MAX_VERSION = 127  # one byte, so that it is found without a decoder

MAX_SEGMENTS = 64  # of a prompt
MAX_DIMENSIONS = 8  # of a tensor
MAX_PROBS_BYTES = 4096  # of one offer's distributions: decoding them costs time that grows with the square of this

MAX_NAME_CHARS = 256
MAX_RULE_CHARS = 64
MAX_SENTENCE_CHARS = 1000
MAX_KEY_BYTES = 64
MAX_DIGEST_BYTES = 32  # of a vocabulary
LOG_DIGEST_BYTES = 8
MAX_RETRY_AFTER_S = 86400.0
MAX_GAP_CHANGE = 1e6


class FrameLimits(msgspec.Struct, frozen=True):
    """What one side takes of the other.

    max_frame_bytes: of one message.
    max_prompt_tokens: of all token segments of a prompt together.
    max_tensor_bytes: of all tensors of a prompt together.
    max_draft_tokens: nodes of one offer that are not forced.
    """

    max_frame_bytes: int = 2**23
    max_prompt_tokens: int = 2**15
    max_tensor_bytes: int = 2**22
    max_draft_tokens: int = 256
