"""tightwad's proxy, which drafts with one llama.cpp server and verifies with another. Run by the peers' Python.

python tightwad_proxy.py PORT DRAFT_URL TARGET_URL: all else is as its defaults say.
"""

from __future__ import annotations

import sys

import uvicorn
from tightwad.config import ProxyConfig, ServerEndpoint
from tightwad.proxy import create_app


def main(port: str, draft: str, target: str) -> None:
    """Serve until the process is killed."""
    config = ProxyConfig(ServerEndpoint(draft, "draft"), ServerEndpoint(target, "target"), "127.0.0.1", int(port))
    uvicorn.run(create_app(config), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
