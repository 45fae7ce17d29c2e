"""The measured claims: each bench is `python -m bench.NAME [--quick] [--json]`."""
