from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skydraft.core import SamplingParams
from skydraft.errors import EngineError
from skydraft.sampling import choice, guesses
from skydraft.sampling import kernel as kernels
from skydraft.sampling.choice import ChoiceRequest, choices_together, target_choices
from skydraft.sampling.guesses import best_guesses
from skydraft.sampling.kernel import Kernel, kernel, rows_for
from skydraft.sampling.noise import Stream, gumbel
from skydraft.sampling.warp import warp, without_improbable
from tests.sampling.helpers import Cut, assert_law, perturbed, softmax
from tests.waiting import PATIENCE_S

needs_kernel = pytest.mark.skipif(kernel() is None, reason="needs a C compiler")


def the_kernel() -> Kernel:
    """Where a test needs it."""
    found = kernel()
    assert found is not None
    return found


WARPS: list[Cut] = [
    {},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 1200},
    {"top_p": 0.95},
    {"top_p": 0.3},
    {"top_p": 1e-9},
    {"top_k": 40, "top_p": 0.9},
    {"top_k": 1200, "top_p": 0.999},
    {"min_p": 0.03},
    {"min_p": 0.002, "top_k": 40, "top_p": 0.9},
]


@pytest.fixture(params=["compiled", "compiled without vectors", "numpy"])
def way(request: pytest.FixtureRequest, plain_kernel: Kernel | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways to choose: a kernel, one for processors without AVX2, no compiler."""
    if request.param != "numpy" and kernel() is None:
        pytest.skip("needs a C compiler")
    found = {"compiled": kernel(), "compiled without vectors": plain_kernel, "numpy": None}[request.param]
    monkeypatch.setattr(kernels, "kernel", lambda: found)
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def plain_kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel | None:
    if kernel() is None:
        return None
    path = tmp_path_factory.mktemp("kernel") / "plain.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_FLAGS", tuple(flag for flag in kernels._FLAGS if not flag.startswith("-m")))
        assert kernels._compile(path) is None
    return Kernel(path)


def rows_of(kind: str, vocab_size: int, num_rows: int = 3) -> np.ndarray:
    """float32 [num_rows, vocab_size]."""
    rng = np.random.default_rng([vocab_size, len(kind)])
    rows = 2.5 * rng.standard_normal((num_rows, vocab_size))
    if kind == "peaked":
        rows += np.where(rng.random(rows.shape) < 20 / vocab_size, rng.uniform(8, 20), 0.0)
    elif kind == "Zipf":
        rows = -1.1 * np.log(1 + rng.permuted(np.tile(np.arange(vocab_size), (num_rows, 1)), axis=1))
    elif kind == "tied":
        rows = np.round(rows)
    elif kind == "all equal":
        rows[:] = 3.25
    elif kind == "nearly all -inf":
        rows = np.where(rng.random(rows.shape) < 10 / vocab_size, rows, -np.inf)
        rows[:, vocab_size // 2] = 1.0
    elif kind == "masked by the lowest float":
        rows = np.where(rng.random(rows.shape) < 0.5, rows, np.finfo(np.float32).min)
    return rows.astype(np.float32)


KINDS = ["flat", "peaked", "Zipf", "tied", "all equal", "nearly all -inf", "masked by the lowest float"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab_size", [5, 31, 566, 2048, 9001])
def test_choices_are_the_largest_of_all_perturbed_logits_in_every_way(vocab_size: int, kind: str, way: str) -> None:
    logits, positions = rows_of(kind, vocab_size), [0, 77, 2**32 - 1]
    for number, cut in enumerate(WARPS):
        for temperature in (0.05, 0.8, 20.0):
            params = SamplingParams(temperature=temperature, seed=2**64 - 1 - number, **cut)
            expected = perturbed(logits, params, positions).argmax(axis=-1).tolist()
            assert target_choices(logits, params, positions) == expected, params


@pytest.mark.parametrize("kind", ["flat", "peaked", "Zipf", "nearly all -inf"])
@pytest.mark.parametrize("vocab_size", [151_665, 262_144])
def test_choices_of_real_vocabularies_are_the_largest_in_every_way(vocab_size: int, kind: str, way: str) -> None:
    logits, positions = rows_of(kind, vocab_size, 2), [6, 1000]
    noise = gumbel(11, np.array(positions)[:, None], np.arange(vocab_size)[None], Stream.TARGET)
    for cut in WARPS[0], WARPS[2], WARPS[4], WARPS[7], WARPS[9]:
        params = SamplingParams(temperature=0.8, seed=11, **cut)
        assert target_choices(logits, params, positions) == (warp(logits, params) + noise).argmax(-1).tolist()


@needs_kernel
@given(
    seed=st.integers(0, 2**64 - 1),
    temperature=st.floats(0.02, 30),
    cut=st.sampled_from(WARPS),
    vocab_size=st.integers(1, 300) | st.integers(8100, 8300),
    sharpness=st.floats(0.1, 30),
)
def test_the_kernel_chooses_as_arrays_do(
    seed: int, temperature: float, cut: Cut, vocab_size: int, sharpness: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = (sharpness * rng.standard_normal((2, vocab_size))).astype(np.float32)
    params, positions = SamplingParams(temperature=temperature, seed=seed, **cut), rng.integers(0, 2**32, 2).tolist()
    places = [(seed, position) for position in positions]
    assert target_choices(logits, params, positions) == choice._sampled_by_arrays(logits, params, places)


@needs_kernel
def test_hardly_a_choice_is_left_open() -> None:
    places = [(4, position) for position in range(200)]
    for cut in WARPS:
        params = SamplingParams(temperature=0.8, seed=4, **cut)
        for kind in ("flat", "peaked", "Zipf"):
            logits = np.tile(rows_of(kind, 2000, 1), (200, 1))
            assert the_kernel().choose(logits, params, places, Stream.TARGET).count(None) <= 1


@needs_kernel
def test_a_choice_that_rounding_errors_leave_open_is_left_to_numpy() -> None:
    """Two tokens whose sums are nearer than 1e-9: their noise nearly is, and float32 logits add what is missing."""
    noise = gumbel(3, 5, np.arange(500), Stream.TARGET)
    order = np.argsort(noise)
    at = int(np.argmin(np.diff(noise[order])))
    pair = order[at : at + 2]
    logits = np.full((1, 500), -100.0, dtype=np.float32)
    logits[0, pair] = [noise[pair[1]] - noise[pair[0]], 0.0]
    params = SamplingParams(temperature=1.0, seed=3)
    sums = perturbed(logits, params, [5])[0]
    assert abs(sums[pair[0]] - sums[pair[1]]) < 1e-9
    assert the_kernel().choose(logits, params, [(3, 5)], Stream.TARGET) == [None]
    assert target_choices(logits, params, [5]) == [int(sums.argmax())]


@needs_kernel
def test_of_a_nucleus_that_ends_within_rounding_errors_numpy_knows_the_edge() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.125, 0.125]])).astype(np.float32)
    left_open = 0
    for seed in range(50):
        params = SamplingParams(temperature=1.0, top_p=0.75, seed=seed)
        left_open += the_kernel().choose(logits, params, [(seed, 0)], Stream.TARGET) == [None]
        assert target_choices(logits, params, [0]) == perturbed(logits, params, [0]).argmax(-1).tolist()
    assert left_open > 0


@needs_kernel
@pytest.mark.parametrize("cut", [{}, {"top_k": 4}, {"top_p": 0.7}])
def test_compiled_choices_have_the_law_of_the_warped_logits(cut: Cut) -> None:
    row = (1.5 * np.random.default_rng(1).standard_normal(8)).astype(np.float32)
    params = SamplingParams(temperature=0.8, seed=1, **cut)
    chosen = target_choices(np.tile(row, (40_000, 1)), params, range(40_000))
    assert_law(np.bincount(chosen, minlength=8), softmax(warp(row, params)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_of_any_width_are_chosen_from_as_their_values(dtype: torch.dtype, way: str) -> None:
    tensor = torch.from_numpy(rows_of("peaked", 3000)).to(dtype)
    for cut in WARPS:
        params = SamplingParams(temperature=0.8, seed=77, **cut)
        expected = perturbed(tensor.double().numpy(), params, [3, 4, 5]).argmax(axis=-1).tolist()
        assert target_choices(tensor, params, [3, 4, 5]) == expected


def test_rows_that_lie_apart_or_backwards_are_chosen_from(way: str) -> None:
    logits, params = rows_of("peaked", 3000, 6), SamplingParams(temperature=0.8, seed=5)
    for view in (logits[::2], logits[::-2], logits[:3, :2999], logits[:3, ::2], np.asfortranarray(logits[:3])):
        assert target_choices(view, params, [1, 2, 3]) == target_choices(view.copy(), params, [1, 2, 3])


@needs_kernel
def test_what_the_kernel_cannot_take_exactly_it_does_not_take() -> None:
    assert rows_for(np.zeros((2, 3))) is None
    assert rows_for(np.zeros((2, 3), dtype=np.int32)) is None
    assert rows_for(torch.zeros(2, 3, dtype=torch.float64)) is None
    assert rows_for(torch.zeros(2, 3, device="meta")) is None
    assert rows_for(np.zeros((2, 0), dtype=np.float32)) is None


@needs_kernel
def test_texts_of_one_cut_are_chosen_for_without_joining_their_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "array_namespace", None)
    wanted = [
        ChoiceRequest(rows_of("peaked", 2048), SamplingParams(temperature=0.8, seed=seed), [seed, 7, 8])
        for seed in range(4)
    ]
    assert choices_together(wanted) == [target_choices(*each) for each in wanted]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "all -inf"])
@pytest.mark.parametrize("params", [SamplingParams(), *(SamplingParams(temperature=0.8, **cut) for cut in WARPS)])
@pytest.mark.parametrize("vocab_size", [16, 20_000])
def test_a_row_without_a_finite_largest_logit_is_an_error_in_every_way(
    bad: float, params: SamplingParams, vocab_size: int, way: str
) -> None:
    logits = rows_of("flat", vocab_size)
    logits[1, slice(None) if bad == -np.inf else vocab_size - 3] = bad
    for make in (target_choices, lambda logits, params, positions: best_guesses(logits, params, positions, 2)):
        with np.errstate(invalid="ignore"), pytest.raises(EngineError, match="not a finite number"):
            make(logits, params, [0, 1, 2])


@needs_kernel
@pytest.mark.parametrize("cut", WARPS)
def test_nan_is_found_wherever_it_stands(cut: Cut) -> None:
    for seed in range(60):
        logits = rows_of("peaked", 9001, 1)
        logits[0, seed * 9001 // 60 if seed else 9000] = np.nan
        params = SamplingParams(temperature=0.8, seed=seed, **cut)
        assert the_kernel().choose(logits, params, [(seed, 0)], Stream.TARGET) == [None]
        assert the_kernel().guess(logits, params, [0], 4, 256) is None


@needs_kernel
@pytest.mark.parametrize("vocab_size", [5, 566, 3000, 20_000, 151_665])
@pytest.mark.parametrize("kind", ["flat", "peaked", "Zipf"])
def test_compiled_guesses_are_those_of_arrays(vocab_size: int, kind: str) -> None:
    logits, positions = rows_of(kind, vocab_size), [4, 5, 6]
    all_params = [SamplingParams(temperature=t, seed=8, **cut) for t in (0.3, 0.8, 1.5) for cut in WARPS]
    for params in [SamplingParams(), *all_params[:: 1 if vocab_size < 10**5 else 5]]:
        compiled = best_guesses(logits, params, positions, 5)
        by_arrays = guesses._by_arrays(without_improbable(logits, params), params, positions, 5, 256)
        for one, other in zip(compiled, by_arrays, strict=True):
            assert one.token_ids == other.token_ids, params
            assert one.scores == pytest.approx(other.scores, abs=3e-3)


@needs_kernel
def test_guesses_of_the_coldest_temperatures_are_as_many_as_are_wanted() -> None:
    logits = rows_of("flat", 9000)
    for params in (SamplingParams(temperature=1e-30), SamplingParams(temperature=1e-3, top_k=7)):
        assert [len(each.token_ids) for each in best_guesses(logits, params, [0, 1, 2], 5)] == [5, 5, 5]


@needs_kernel
def test_a_guess_that_the_kernel_has_no_room_for_is_made_by_arrays() -> None:
    assert len(best_guesses(rows_of("flat", 500), SamplingParams(), [0, 1, 2], 65)[0].token_ids) == 65


@pytest.fixture
def no_kernel_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel.cache_clear()
    yield tmp_path / "skydraft"
    kernel.cache_clear()


@needs_kernel
def test_the_kernel_is_compiled_once_into_a_cache_of_the_users_own(
    no_kernel_yet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel() is not None
    assert [path.suffix for path in no_kernel_yet.iterdir()] == [".so"]
    assert no_kernel_yet.stat().st_mode & 0o077 == 0
    kernel.cache_clear()
    monkeypatch.setattr(kernels, "_compile", None)
    assert kernel() is not None


@pytest.mark.parametrize("compiler", ["false", "/no/such/compiler", "true"])
def test_without_a_compiler_that_works_there_is_no_kernel(
    compiler: str, no_kernel_yet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert kernel() is None
    assert list(no_kernel_yet.iterdir()) == []


def test_a_machine_without_a_compiler_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernels._compile(tmp_path / "kernel.so") == "no C compiler was found (cc, gcc, clang, or what CC names)"


@pytest.mark.skipif(os.name != "posix", reason="needs modes of files")
def test_nothing_is_run_from_a_folder_that_others_can_write_to(no_kernel_yet: Path) -> None:
    no_kernel_yet.mkdir(mode=0o700)
    no_kernel_yet.chmod(0o777)
    assert kernel() is None
    assert list(no_kernel_yet.iterdir()) == []


def test_without_a_folder_to_write_to_there_is_no_kernel(
    no_kernel_yet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernel() is None


@pytest.mark.parametrize("content", [b"", b"no library"])
def test_a_broken_file_in_the_cache_is_no_kernel(content: bytes, no_kernel_yet: Path) -> None:
    no_kernel_yet.mkdir(mode=0o700)
    (no_kernel_yet / kernels._name()).write_bytes(content)
    assert kernel() is None


@needs_kernel
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("0xCD9E8D57u}", "0xCD9E8D59u}"),
        ("LARGEST_GUMBEL = 22.88", "LARGEST_GUMBEL = 0.88"),
        ('return __builtin_cpu_supports("avx2") &&', "return 0 &&"),
    ],
    ids=["other numbers", "a wrong bound", "another processor"],
)
def test_a_library_that_does_not_choose_as_numpy_does_or_not_here_is_no_kernel(
    right: str, wrong: str, no_kernel_yet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = kernels._SOURCE.read_text()
    assert right in source
    (tmp_path / "kernel.c").write_text(source.replace(right, wrong))
    monkeypatch.setattr(kernels, "_SOURCE", tmp_path / "kernel.c")
    if right.startswith("return") and not kernels._IS_X86:
        pytest.skip("needs an x86 processor")
    assert kernel() is None
    assert len(list(no_kernel_yet.iterdir())) == 1


@needs_kernel
def test_an_installation_can_have_the_kernel_beside_its_source(
    no_kernel_yet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernel.c").write_text(kernels._SOURCE.read_text())
    monkeypatch.setattr(kernels, "_SOURCE", tmp_path / "kernel.c")
    kernels.main()
    monkeypatch.setattr(kernels, "_compile", None)
    assert kernel() is not None
    assert not no_kernel_yet.exists()


def test_a_process_without_a_compiler_chooses_the_same(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from skydraft.core import SamplingParams; "
        "from skydraft.sampling.choice import target_choices; from skydraft.sampling.kernel import kernel; "
        "rows = np.cos(np.arange(40_000.0) ** 1.5).reshape(4, -1).astype(np.float32) * 9; "
        "print(kernel() is not None, target_choices(rows, SamplingParams(temperature=0.8, seed=9), range(4)))"
    )
    environments = [{}, {"CC": "false", "XDG_CACHE_HOME": str(tmp_path)}]
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | env,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        ).stdout.split(" ", 1)
        for env in environments
    ]
    assert told[1][0] == "False"
    assert told[0][1] == told[1][1]
