"""Modes of writing against links: real texts, real sockets and processes, models with the pace of larger ones."""
