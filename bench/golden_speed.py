"""Images per second of the golden model and of the torch model, side by side in one run.

    python -m bench.golden_speed [NET]

NET is a shipped net, or a network of the paper with random parameters at a size: resnet18@224.
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
PIXELS = 2**21  # of all images, where they are large
MNIST = Path(os.environ.get("N2UQ_MNIST")
             or Path(__file__).parents[2] / "shared" / "data" / "mnist")


def measure(name: str, threads: int) -> tuple[float, float]:
    """Images per second of (torch, golden); BLAS must have been told its threads before."""
    import numpy as np
    import torch

    from n2uq_hw import data, nn
    from n2uq_hw.ir import golden
    from n2uq_hw.lowering.lower import lower
    from n2uq_hw.nets import find_net

    from .networks import plausible

    torch.set_num_threads(threads)
    of, _, size = name.partition("@")
    net = plausible(of, int(size)) if size else find_net(name)
    count = count_for(name)
    graph, network = lower(net), nn.Network.from_net(net).eval()
    if net.meta.get("dataset") == "mnist" and MNIST.is_dir():
        images = data.load("mnist", MNIST).images[:count]
    else:
        images = np.random.default_rng(0).integers(0, net.input.max + 1, (count, *net.input.shape),
                                                   np.uint16 if net.input.max > 255 else np.uint8)
    factor, offset = (torch.from_numpy(values.astype(np.float32)).reshape(-1, 1, 1)
                      for values in (net.input.factor, net.input.offset))
    pixels = torch.from_numpy(images.astype(np.float32)) * factor + offset
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    best = [float("inf")] * 2
    with torch.inference_mode():
        for _ in range(TURNS):
            # Torch in slices as golden takes them, if that is faster for it.
            for portion in (golden.BATCH, count):
                begin = perf_counter()
                logits = torch.cat([network(part) for part in pixels.split(portion)])
                best[0] = min(best[0], perf_counter() - begin)
            begin = perf_counter()
            out = golden.run(graph, channels_last)
            best[1] = min(best[1], perf_counter() - begin)
    agree = (logits.argmax(1).numpy() == out.reshape(count, -1).argmax(1)).mean()
    # An untrained net's classes hang on the last bit.
    assert size or agree > 0.99, f"the same classes are expected, not {agree:.1%} of them"
    return count / best[0], count / best[1]


def count_for(name: str) -> int:
    """How many images to run."""
    size = name.partition("@")[2]
    return max(min(IMAGES, PIXELS // int(size)**2), 8) if size else IMAGES


def main(arguments: list[str]) -> None:
    """Print the table; each number of threads in a process of its own, as BLAS reads it once."""
    name = arguments[0] if arguments else "mnist_cnn_w2a2"
    if len(arguments) > 1:
        print(*measure(name, int(arguments[1])))
        return
    print(f"{name}, {count_for(name)} images, best of {TURNS} turns, images/s\n"
          f"{'threads':>8}{'torch':>10}{'golden':>10}{'golden/torch':>14}")
    for threads in THREADS:
        env = {**os.environ, **{f"{library}_NUM_THREADS": str(threads)
                                for library in ("OPENBLAS", "OMP", "MKL")}}
        done = subprocess.run([sys.executable, "-m", "bench.golden_speed", name, str(threads)],
                              env=env, check=True, capture_output=True, text=True)
        theirs, ours = map(float, done.stdout.split())
        print(f"{threads:>8}{theirs:>10.1f}{ours:>10.1f}{ours / theirs:>14.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
