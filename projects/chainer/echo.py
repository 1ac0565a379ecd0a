"""Prints i=0 to i=n-1, one a second: shows that output travels while a trial runs."""

import argparse
import time


def main():
    """Count to n."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5, help="how many lines")
    for i in range(parser.parse_args().n):
        if i:
            time.sleep(1)
        print(f"i={i}", flush=True)


if __name__ == "__main__":
    main()
