"""A cloud for the occasion, and a conversation with it."""

import sys

from skydraft import Client, Cloud

draft, target = sys.argv[1:]
with Cloud(target) as address, Client(draft=draft, cloud=address, max_tokens=40) as client:
    talk = [{"role": "user", "content": "Once upon a time,"}]
    for _ in range(2):
        answer = client.chat(talk).text
        print(answer)
        talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And then?"}]
