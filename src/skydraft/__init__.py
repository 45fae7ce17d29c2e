"""skydraft: a small model on a device drafts, a large model in a cloud judges."""

__version__ = "0.1.0"
