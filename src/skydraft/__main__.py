"""`python -m skydraft`."""

from skydraft.cli import main

if __name__ == "__main__":
    main()
