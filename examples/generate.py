"""A text, and the same one while it comes."""

import sys

from skydraft import Client

draft, target = sys.argv[1:]
with Client(draft=draft, target=target, max_tokens=40) as client:
    report = client.generate("Once upon a time,", temperature=0.8, seed=1)
    print(report.text)
    for piece in client.stream("Once upon a time,", temperature=0.8, seed=1):
        print(piece.text, end="", flush=True)
    print()
