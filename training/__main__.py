"""From nothing to a pair: `python -m training --speech ../shared/speech --out pair`; `--ship`: the shipped one."""

from training.pipeline import main

if __name__ == "__main__":
    main()
