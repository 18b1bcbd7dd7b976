"""Compare the RTL with the integer engine and the cycle model on random networks.

    python tools/rtl_sweep.py --cases 40 --seed 0

Prints a line for every case, and the first mismatch of each that is not equal; ends with 1 if any
is not. Cases that the target refuses are named and do not count.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
    from tests.rtl_cases import mismatch, random_case

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    given = parser.parse_args()
    ran = wrong = 0
    for seed in range(given.seed, given.seed + given.cases):
        name, case = random_case(seed)
        try:
            found = mismatch(case.verdict())
        except (InputError, UnsupportedError) as error:
            print(f"refused  {name}: {error}", flush=True)
            continue
        except (SnnDeployError, AssertionError):
            found = traceback.format_exc()
        ran += 1
        wrong += bool(found)
        print(f"{'WRONG' if found else 'equal':8} {name}{found and ': '}{found}", flush=True)
    print(f"{ran} cases, {wrong} not equal")
    return int(wrong > 0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SNN_DEPLOY_CACHE"] = cache
        sys.exit(main())
