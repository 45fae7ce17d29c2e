"""How voices sound, by the embedded pair: python examples/caption.py FILE..."""

import sys

from skydraft import Client

with Client(mode="edge", share="none") as client:
    for file in sys.argv[1:]:
        print(file, client.caption(file).text)
