"""Makes the embedded pair: two small Qwen2.5-Omni-class captioners of how a speaker sounds. Not shipped."""
