"""Headers of the handshake that are skydraft's own."""

ROUTE_HEADER = "x-session-id"  # what Ray Serve's routers and many proxies look at, by default or by one setting
WANTS_HEADER = "x-skydraft-wants"  # messages that the device takes, though older ones do not
PROMPT_READ = "prompt-read"
