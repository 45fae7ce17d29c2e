"""Random messages and offers, all of them valid."""

from __future__ import annotations

import math
from random import Random

from hypothesis import assume
from hypothesis import strategies as st

from skydraft import core
from skydraft.protocol import messages, packing
from skydraft.protocol.limits import MAX_SESSION, MAX_TEXT_TOKENS, MAX_VOCABULARY

NUM_TOKENS = 151_936
ID_BITS = 18

positions = st.integers(0, MAX_TEXT_TOKENS)
sessions = st.just(0) | st.integers(0, MAX_SESSION)
token_ids = st.integers(0, NUM_TOKENS - 1)
log_digests = st.binary(min_size=8, max_size=8)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
packed = st.lists(token_ids, max_size=12).map(lambda ids: packing.pack(ids, ID_BITS))

marks = st.builds(
    messages.VocabularyMark, st.just(NUM_TOKENS), st.binary(min_size=8, max_size=32)
)  # of one size, so that any packed prompt belongs to it
samplings = st.builds(
    core.SamplingParams,
    temperature=st.floats(0, 100),
    top_k=st.integers(0, MAX_VOCABULARY),
    top_p=st.floats(0, 1, exclude_min=True),
    seed=st.integers(0, 2**64 - 1),
    max_tokens=st.integers(1, MAX_TEXT_TOKENS),
    end_ids=st.lists(token_ids, max_size=4).map(tuple),
)
penalties = st.floats(-2, 2)
biases = st.dictionaries(token_ids, st.floats(-100, 100), max_size=4).map(lambda bias: tuple(sorted(bias.items())))
shaped_samplings = st.builds(
    core.SamplingParams,
    min_p=st.floats(0, 1),
    presence_penalty=penalties,
    frequency_penalty=penalties,
    repetition_penalty=st.floats(0.1, 10),
    logit_bias=biases,
    top_logprobs=st.none() | st.integers(0, 20),
    stop=st.lists(names.filter(bool), max_size=4).map(tuple),
    grammar=st.none() | st.builds(core.Grammar, st.sampled_from(["json", "lark", "regex"]), names.filter(bool)),
)
rules: st.SearchStrategy[core.AcceptanceRule] = st.one_of(
    st.just(core.Exact()),
    st.builds(core.Rejection, st.integers(1, 256), st.integers(1, 65536)),
    st.builds(core.Rank, st.integers(1, MAX_VOCABULARY)),
    st.builds(core.MinProb, st.floats(0, 1, exclude_min=True)),
)


@st.composite
def tensors(draw: st.DrawFn) -> messages.WireTensor:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    dtype = draw(st.sampled_from(sorted(core.DTYPE_BYTES)))
    num_bytes = math.prod(shape) * core.DTYPE_BYTES[dtype]
    data = draw(st.binary(min_size=num_bytes, max_size=num_bytes))
    return messages.WireTensor(draw(names), dtype, shape, data)


segments = st.builds(messages.WireTokens, packed, st.booleans()) | tensors()
resumes = st.builds(messages.Resume, st.binary(min_size=1, max_size=64), positions, log_digests)


@st.composite
def opens(draw: st.DrawFn) -> messages.Open:
    prompt, resume = draw(st.lists(segments, max_size=4).map(tuple)), draw(st.none() | resumes)
    if not prompt and resume is None:
        prompt = (messages.WireTokens(b""),)
    sampling, rule = draw(samplings | shaped_samplings), draw(rules)
    assume(rule.judges_shaped or not sampling.shapes_logits)
    common = (draw(sessions), draw(marks), sampling, str(rule))
    return messages.Open(messages.least_version(sampling), *common, prompt, resume)


@st.composite
def drafts(draw: st.DrawFn) -> messages.Offer:
    ids = draw(st.lists(token_ids, min_size=1, max_size=12))
    num_forced = draw(st.integers(0, len(ids)))
    extra = draw(st.sampled_from(["packed_parents", "packed_probs", ""]))
    extras = {extra: draw(st.binary(min_size=1, max_size=20))} if extra else {}
    packed_ids = packing.pack(ids, ID_BITS)
    return messages.Offer(draw(positions), packed_ids, draw(sessions), num_forced, **extras)


counts = st.integers(1, 2**31 - 1)
openeds = st.builds(
    messages.Opened,
    st.just(messages.PROTOCOL_VERSION),
    sessions,
    st.binary(max_size=64),
    positions,
    log_digests,
    marks,
    st.builds(messages.Limits, counts, counts, counts),
    names,
)
verdicts = st.builds(
    messages.Verdict,
    st.integers(1, MAX_TEXT_TOKENS),
    st.none() | token_ids,
    sessions,
    st.none() | st.integers(0, 4096),
    st.booleans(),
    packed_logprobs=st.binary(max_size=24),
    is_end=st.booleans(),
)
tokens = st.builds(messages.Tokens, positions, packed.filter(bool), sessions, packed_logprobs=st.binary(max_size=24))
faults = st.builds(
    messages.Fault,
    st.sampled_from(messages.FaultCode),
    names,
    st.none() | sessions,
    st.none() | st.floats(0, 86400),
)

edge_messages = st.one_of(
    opens(),
    drafts(),
    st.builds(messages.Generate, positions, sessions),
    st.builds(messages.Close, sessions),
)
cloud_messages = st.one_of(
    openeds,
    verdicts,
    tokens,
    faults,
    st.builds(messages.Working, sessions),
    st.builds(messages.PromptRead, positions, sessions),
)


@st.composite
def drawn_tokens(draw: st.DrawFn, num_tokens: int, lattice: core.Lattice, max_size: int = 4) -> packing.DrawnTokens:
    """Tokens with the distributions that they were drawn from, of every size that the lattice has."""
    largest, random = min(lattice.top_k, lattice.denominator, num_tokens), Random(draw(st.integers(0, 2**32)))
    drawn: list[int] = []
    distributions: list[core.LatticeDistribution] = []
    for size in draw(st.lists(st.just(largest) | st.integers(1, largest), max_size=max_size)):
        cuts = sorted(random.sample(range(1, lattice.denominator), size - 1))
        weights = tuple(after - before for before, after in zip([0, *cuts], [*cuts, lattice.denominator], strict=True))
        support = tuple(sorted(random.sample(range(num_tokens), size)))
        drawn.append(*random.choices(support, weights))
        distributions.append(core.LatticeDistribution(support, weights))
    return packing.DrawnTokens(tuple(drawn), tuple(distributions))


@st.composite
def _small_trees(draw: st.DrawFn) -> tuple[core.TreeShape, tuple[int, ...]]:
    """A tree and its token ids: siblings have different ones."""
    parents = draw(st.integers(1, 6).flatmap(lambda n: st.tuples(*(st.integers(0, i) for i in range(n)))))
    return core.TreeShape(parents), tuple(range(len(parents)))


small_trees = _small_trees()
