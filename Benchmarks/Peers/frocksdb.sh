#!/usr/bin/env bash
# Fetches FRocksDB 8.10, the RocksDB that Flink runs, out of PyPI's wheel of Flink's libraries (329 MB), and ForSt with it.
# Their shared objects export RocksDB's C API. Needs pip and unzip or Python's zipfile; result: Benchmarks/out/peers.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p out/peers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip download --no-deps --quiet --dest "$work" apache-flink-libraries==2.3.0
python3 - "$work" out/peers <<'PYTHON'
import glob, io, sys, zipfile
work, out = sys.argv[1], sys.argv[2]
wheel = zipfile.ZipFile(glob.glob(work + "/*.whl")[0])
jar = next(n for n in wheel.namelist() if "flink-dist" in n and n.endswith(".jar"))
natives = zipfile.ZipFile(io.BytesIO(wheel.read(jar)))
for name in ("librocksdbjni-linux64.so", "libforstjni-linux64.so"):
    natives.extract(name, out)
    print(out + "/" + name)
PYTHON
