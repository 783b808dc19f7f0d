"""How a peer is told to train: a number of samples on a line of standard input, what it took on a line of output.

Between two turns it waits for the next line and costs nothing.
"""

import json
import sys
import time
from collections.abc import Callable


def take_turns(train: Callable[[int], int]) -> None:
    """Calls `train(samples)`, which returns how many it trained on, for every line until the input ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        samples = train(int(line))
        print(json.dumps({"samples": samples, "seconds": time.perf_counter() - began}), flush=True)
