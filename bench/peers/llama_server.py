"""llama.cpp's own HTTP server with one slot and one thread, out of xllamacpp. Run by the peers' Python, not skydraft's.

python llama_server.py MODEL PORT [DRAFT]: with a draft model it drafts beside the target, as its defaults say.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp


def main(model: str, port: str, draft: str = "") -> None:
    """Serve until the process is killed."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_parallel, params.n_ctx = 1, 1024
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.ui = False
    if draft:
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        params.speculative.draft.mparams.path = draft
        params.speculative.draft.cpuparams.n_threads = params.speculative.draft.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
