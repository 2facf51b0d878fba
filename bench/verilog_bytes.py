"""The bytes of Verilog of every shipped net at four foldings: the same before and after a change?

``python -m bench.verilog_bytes FILE`` builds them and writes their SHA-256; where FILE is there, it
compares with it, and exit code 1 says that some differ.  Only the command line is used, so that
FILE may come from another layout of the sources: ``--sources FOLDER`` runs those in FOLDER.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDINGS = {"default": (), "2304 cycles": ("--cycles", "2304"), "fastest": ("--cycles", "fastest"),
            "unrolled": ("--unroll", "2")}


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.verilog_bytes", allow_abbrev=False)
    parser.add_argument("file", type=Path, help="where the digests are, or will be")
    parser.add_argument("--sources", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--nets", help="with commas between; default: all that ship")
    options = parser.parse_args()
    env = os.environ | {"PYTHONPATH": str(options.sources.resolve())}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "n2uq_hw", *words], env=env, text=True,
                              capture_output=True, check=False, cwd=options.sources)

    nets = (options.nets.split(",") if options.nets else
            list(json.loads(run("nets", "--json").stdout)))
    before = json.loads(options.file.read_text()) if options.file.exists() else {}
    digests: dict[str, dict[str, str]] = {}
    for net in nets:
        for name, words in FOLDINGS.items():
            with tempfile.TemporaryDirectory() as scratch:
                out = Path(scratch) / "build"
                if "fastest" in words:  # the refusal of one cycle names the fewest
                    refused = run("build", net, "--cycles", "1", "--out", str(out)).stderr
                    fewest = re.search(r"takes ([\d,]+) cycles", refused)
                    words = ("--cycles", fewest[1].replace(",", "")) if fewest else ()
                done = run("build", net, *words, "--out", str(out))
                hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()
                          for file in sorted((out / "rtl").iterdir())} if not done.returncode else {
                            "refused": done.stderr.strip()}
            for file, digest in hashes.items():
                old = before.get(f"{net}, {name}", {}).get(file)
                state = "" if not before else "same" if old == digest else "DIFFERENT"
                print(f"{net}, {name}: {file} {digest[:16]} {state}", flush=True)
            digests[f"{net}, {name}"] = hashes
    if not before:
        options.file.write_text(json.dumps(digests, indent=1) + "\n")
    return int(bool(before) and any(before.get(key) != hashes for key, hashes in digests.items()))


if __name__ == "__main__":
    sys.exit(main())
