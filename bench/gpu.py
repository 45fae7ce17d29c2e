"""What judging costs on a GPU: the transformers engine at the true shapes of 7B models, random weights, bfloat16.

For drafts of 1 to 32 tokens and 1 to 64 texts at once: the time of a forward pass, which reads the last token of every
text and its draft, and of the target's choices; and how near that is to what the machine can do. A draft of 0 tokens is
the cloud writing alone.

    python -m bench.gpu                        both models; results in bench/results/gpu.json
    python -m bench.gpu --device cpu --tiny    tries it out, without a GPU
    python -m bench.gpu --invariance MODEL     whether texts are the cloud's own (`bench/invariance`): five minutes for
                                               a model of 7B; results in bench/results/invariance.json

Of every case: forward_ms, choices_ms (medians, the second includes the transfer to the host); positions_per_s, which
are tokens where all are accepted; tokens_per_s at 70 % accepted; bandwidth_share: bytes of weights and KV cache that
the pass must read, over its time, over the measured bandwidth of a copy; limit_share: the same against whichever takes
longer, reading these bytes or multiplying at the measured rate of a large matrix product.

Claims, for each model: verify_ms.B.K for B texts and drafts of K tokens, tokens_per_s.B.K, bandwidth_share.B.K.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import torch

from bench import invariance
from bench.claims import RESULTS, Claim, machine, show, write_results
from bench.shapes import MAKERS, Shaped, Size
from skydraft.core import Prompt, SamplingParams, TokenSegment
from skydraft.engines.accelerator import find_accelerator
from skydraft.engines.base import EngineLimits, Extension, Slot
from skydraft.errors import SkydraftError
from skydraft.sampling.choice import ChoiceRequest, choices_together

DRAFT_LENGTHS = (0, 1, 2, 4, 8, 16, 32)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
TOLD_LENGTHS, TOLD_BATCHES = (0, 8, 32), (1, 8, 64)
ACCEPTED = 0.7  # of the drafted tokens, each by itself
NUM_WARM_UP = 3
SEED = 1


class Machine(NamedTuple):
    """What the device can do at best, measured.

    bytes_per_s: read and written by a copy. flops: of a large product of matrices in the dtype of the bench.
    """

    name: str
    bytes_per_s: float
    flops: float


class Case(NamedTuple):
    """One batch of drafts. Times are medians."""

    batch: int
    draft_length: int
    forward_ms: float
    choices_ms: float
    positions_per_s: float
    tokens_per_s: float
    bandwidth_share: float
    limit_share: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 with a sentence where there is nothing to measure on."""
    options = _parser().parse_args(arguments)
    if options.device not in _devices():
        print(
            f"gpu: no GPU was found for --device {options.device}; `--device cpu --tiny` does without", file=sys.stderr
        )
        return 1
    try:
        if options.invariance is not None:
            return invariance.run(options)
        content = _measure(options)
    except SkydraftError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 1
    if not options.tiny:
        write_results(RESULTS / "gpu.json", "bench.gpu", content)
    show(list(_claims(content)), options.json)
    return 0


def _devices() -> list[str]:
    """What a model can run on here."""
    found = find_accelerator()
    return ["cpu", *([found.device] if found else [])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "mps", "cpu"), help="[default: cuda]")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--model", choices=tuple(MAKERS), help="[default: all, one after the other]")
    parser.add_argument("--context", type=_count, default=512, metavar="N", help="tokens before a draft [default: 512]")
    parser.add_argument("--rounds", type=_count, default=20, metavar="N", help="of a case [default: 20]")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="of the choices [default: 0]")
    parser.add_argument("--invariance", metavar="MODEL", help="such as vllm:Qwen/Qwen2.5-7B-Instruct: compare texts")
    parser.add_argument("--flag", default="both", choices=("both", *invariance.FLAGS), help="of --invariance")
    parser.add_argument("--prompts", type=_count, default=200, metavar="N", help="of --invariance [default: 200]")
    parser.add_argument("--tokens", type=_count, default=256, metavar="N", help="of each text [default: 256]")
    parser.add_argument("--tiny", action="store_true", help="small models, few cases, nothing written")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each claim")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 30_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 30000")
    return number


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    sampling = SamplingParams(temperature=options.temperature, seed=SEED)
    batches, lengths = ((1, 3), (0, 4)) if options.tiny else (BATCHES, DRAFT_LENGTHS)
    limits = EngineLimits(max(batches), options.context + max(lengths) + 2)
    size = Size(options.device, options.dtype, limits, options.tiny)
    best = _measure_machine(size)
    _free(options.device)
    models = {}
    for name in (options.model,) if options.model else MAKERS:
        shaped = MAKERS[name](size)
        bench = _Bench(shaped, best, sampling, options)
        cases = [case for batch in batches for case in bench.cases(batch, lengths)]
        models[name] = {"config": shaped.config, "weight_bytes": shaped.weight_bytes, "kv_bytes": shaped.kv_bytes}
        models[name]["cases"] = [case._asdict() for case in cases]
        del bench, shaped  # the next model needs the memory
        _free(options.device)
    return {
        "torch": torch.__version__,
        "device": best._asdict(),
        "dtype": options.dtype,
        "temperature": options.temperature,
        "context": options.context,
        "rounds": options.rounds,
        "models": models,
    }


class _Bench:
    """One engine and texts in its slots."""

    def __init__(self, shaped: Shaped, best: Machine, sampling: SamplingParams, options: argparse.Namespace) -> None:
        self._shaped = shaped
        self._best = best
        self._sampling = sampling
        self._options = options
        self._rng = Random(SEED)
        self._slots: list[Slot] = []

    def cases(self, batch: int, lengths: Sequence[int]) -> Iterator[Case]:
        """All draft lengths for so many texts."""
        while len(self._slots) < batch:
            prompt = Prompt((TokenSegment(tuple(self._ids(self._options.context))),))
            self._slots.append(self._shaped.engine.open(prompt).slot)
        for length in lengths:
            yield self._case(batch, length)

    def _case(self, batch: int, length: int) -> Case:
        times_s = [self._round_s(batch, length) for _ in range(NUM_WARM_UP + self._options.rounds)][NUM_WARM_UP:]
        forward_s, choices_s = (statistics.median(part) for part in zip(*times_s, strict=True))
        total_s, num_positions = forward_s + choices_s, batch * (length + 1)
        num_bytes = self._shaped.weight_bytes + batch * (self._options.context + length + 1) * self._shaped.kv_bytes
        read_s = num_bytes / self._best.bytes_per_s
        multiply_s = 2 * self._shaped.num_weights * num_positions / self._best.flops
        return Case(
            batch=batch,
            draft_length=length,
            forward_ms=1000 * forward_s,
            choices_ms=1000 * choices_s,
            positions_per_s=num_positions / total_s,
            tokens_per_s=batch * expected_tokens(length, ACCEPTED) / total_s,
            bandwidth_share=read_s / total_s,
            limit_share=max(read_s, multiply_s) / total_s,
        )

    def _round_s(self, batch: int, length: int) -> tuple[float, float]:
        """Judge a draft in every text and forget it: seconds of the forward pass and of the choices."""
        slots = self._slots[:batch]
        extensions = [Extension.chain(slot, self._ids(length + 1)) for slot in slots]
        positions = range(length + 1)
        _wait(self._options.device)
        began_s = time.perf_counter()
        rows = self._shaped.engine.extend(extensions)
        _wait(self._options.device)
        passed_s = time.perf_counter()
        choices_together([ChoiceRequest(logits, self._sampling, positions) for logits in rows])
        chosen_s = time.perf_counter()
        for slot in slots:
            self._shaped.engine.crop(slot, 0)
        return passed_s - began_s, chosen_s - passed_s

    def _ids(self, number: int) -> list[int]:
        return [self._rng.randrange(self._shaped.engine.vocabulary.num_tokens) for _ in range(number)]


def expected_tokens(draft_length: int, accepted: float) -> float:
    """Tokens that a round gives when each drafted one holds with this probability and the target adds one."""
    return sum(accepted**number for number in range(draft_length + 1))


def _measure_machine(size: Size) -> Machine:
    num_bytes, side = (2**22, 128) if size.tiny else (2**32, 8192)  # far larger than caches
    accelerator = find_accelerator()
    name = accelerator.name if accelerator and size.device != "cpu" else machine()
    return Machine(name, _copy_bytes_per_s(num_bytes, size.device), _matrix_flops(side, size))


def _copy_bytes_per_s(num_bytes: int, device: str) -> float:
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _median_s(lambda: target.copy_(source), device)


def _matrix_flops(side: int, size: Size) -> float:
    dtype = getattr(torch, size.dtype)
    left, right = (torch.randn(side, side, device=size.device).to(dtype) for _ in range(2))
    return 2 * side**3 / _median_s(lambda: left @ right, size.device)


def _median_s(work: Callable[[], object], device: str) -> float:
    times_s = []
    for _ in range(NUM_WARM_UP + 10):
        _wait(device)
        began_s = time.perf_counter()
        work()
        _wait(device)
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s[NUM_WARM_UP:])


def _wait(device: str) -> None:
    """Until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def _free(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()


def _claims(content: dict[str, Any]) -> Iterator[Claim]:
    for name, model in content["models"].items():
        cases = [Case(**case) for case in model["cases"]]
        told = [case for case in cases if case.batch in TOLD_BATCHES and case.draft_length in TOLD_LENGTHS]
        num_rounds = content["rounds"]
        for case in told or cases:
            place = f"{name}.{case.batch}.{case.draft_length}"
            yield Claim(f"verify_ms.{place}", case.forward_ms + case.choices_ms, "ms", num_rounds)
            yield Claim(f"tokens_per_s.{place}", case.tokens_per_s, "tokens/s", num_rounds)
            yield Claim(f"bandwidth_share.{place}", case.bandwidth_share, "", num_rounds)


if __name__ == "__main__":
    sys.exit(main())
