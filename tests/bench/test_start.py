from bench.start import brought_by, cpu_s, installed_bytes


def test_what_plain_skydraft_brings_has_no_torch() -> None:
    packages = brought_by("tokenizers")
    assert {"tokenizers", "huggingface-hub"} <= packages
    assert not packages & {"torch", "transformers", "pytest"}
    assert installed_bytes("tokenizers") > 1_000_000
    assert installed_bytes("skydraft") > 1_000_000


def test_the_time_of_a_caption_is_that_of_its_processes() -> None:
    assert 0.1 < cpu_s("--mode", "edge") < 600
