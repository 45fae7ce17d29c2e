"""One line for any pair, as with Hugging Face's pipeline."""

import sys

from skydraft import pipeline

draft, target = sys.argv[1:]
with pipeline("text-generation", model=target, assistant_model=draft) as pipe:
    print(pipe("Once upon a time,", max_new_tokens=40)[0]["generated_text"])
