"""Images per second of the golden model and of the torch model, side by side in one run.

    python bench/golden_speed.py [NET]

The same batch and the same number of threads for both; they take turns, and the best turn counts,
since other work on the machine only ever slows a turn down.  MNIST test images come from
$N2UQ_MNIST or ../shared/data/mnist; without them, and for other nets, the images are random.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

THREADS, IMAGES, TURNS = (1, 2), 512, 8
MNIST = Path(os.environ.get("N2UQ_MNIST")
             or Path(__file__).parents[2] / "shared" / "data" / "mnist")


def measure(name: str, threads: int) -> tuple[float, float]:
    """Images per second of (torch, golden); BLAS must have been told its threads before."""
    import numpy as np
    import torch

    from n2uq_hw import data, golden, nn
    from n2uq_hw.lower import lower
    from n2uq_hw.nets import find_net

    torch.set_num_threads(threads)
    net = find_net(name)
    graph, network = lower(net), nn.Network.from_net(net).eval()
    if net.meta["dataset"] == "mnist" and MNIST.is_dir():
        images = data.load("mnist", MNIST).images[:IMAGES]
    else:
        images = np.random.default_rng(0).integers(0, net.input.max + 1, (IMAGES, *net.input.shape),
                                                   np.uint16 if net.input.max > 255 else np.uint8)
    pixels = torch.from_numpy(images.astype(np.float32)) * net.input.scale
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    best = [float("inf")] * 2
    with torch.inference_mode():
        for _ in range(TURNS):
            # Torch in slices as golden takes them, if that is faster for it.
            for size in (golden.BATCH, IMAGES):
                begin = perf_counter()
                logits = torch.cat([network(part) for part in pixels.split(size)])
                best[0] = min(best[0], perf_counter() - begin)
            begin = perf_counter()
            out = golden.run(graph, channels_last)
            best[1] = min(best[1], perf_counter() - begin)
    agree = (logits.argmax(1).numpy() == out.reshape(IMAGES, -1).argmax(1)).mean()
    assert agree > 0.99, f"the same classes are expected, not {agree:.1%} of them"
    return IMAGES / best[0], IMAGES / best[1]


def main(arguments: list[str]) -> None:
    """Print the table; each number of threads in a process of its own, as BLAS reads it once."""
    name = arguments[0] if arguments else "mnist_cnn_w2a2"
    if len(arguments) > 1:
        print(*measure(name, int(arguments[1])))
        return
    print(f"{name}, {IMAGES} images, best of {TURNS} turns, images/s\n"
          f"{'threads':>8}{'torch':>10}{'golden':>10}{'golden/torch':>14}")
    for threads in THREADS:
        env = {**os.environ, **{f"{library}_NUM_THREADS": str(threads)
                                for library in ("OPENBLAS", "OMP", "MKL")}}
        done = subprocess.run([sys.executable, __file__, name, str(threads)], env=env, check=True,
                              capture_output=True, text=True)
        theirs, ours = map(float, done.stdout.split())
        print(f"{threads:>8}{theirs:>10.0f}{ours:>10.0f}{ours / theirs:>14.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
