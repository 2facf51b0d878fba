"""The workload's network as da4ml makes it: run by the Python of da4ml's own environment.

    python da4ml_design.py WORKLOAD FOLDER DELAY CUTOFF

writes FOLDER/src and prints what it made as JSON.  DELAY is the most adders more than the fewest
possible that a sum may wait for (-1: any, for the least area), CUTOFF the adders per stage.
"""

import json
import sys
import time

import numpy as np
from da4ml.codegen import VerilogModel
from da4ml.trace import FixedVariableArrayInput, HWConfig, comb_trace


def main(workload: str, folder: str, delay: int, cutoff: int) -> None:
    arrays = np.load(workload)
    begin = time.perf_counter()
    x = FixedVariableArrayInput(len(arrays["w0"]), hwconf=HWConfig(1, -1, -1),
                                solver_options={"hard_dc": delay}).quantize(0, 2, 0)
    first = x
    for k in range(3):
        x = x @ arrays[f"w{k}"].astype(np.float64)
        if k < 2:
            x = sum(x >= t for t in arrays[f"t{k}"].T.astype(np.float64))
    comb = comb_trace(first, x)
    model = VerilogModel(comb, "peer", folder, latency_cutoff=cutoff)
    model.write()
    vectors = np.random.default_rng(0).integers(0, 4, (2000, len(arrays["w0"])))
    a = vectors
    for k in range(2):
        a = ((a @ arrays[f"w{k}"])[..., None] >= arrays[f"t{k}"]).sum(axis=-1)
    right = bool((comb.predict(vectors.astype(np.float64)) == a @ arrays["w2"]).all())
    print(json.dumps({"seconds": time.perf_counter() - begin, "right": right,
                      "stages": len(model._pipe.solutions) if model._pipe else 0}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
