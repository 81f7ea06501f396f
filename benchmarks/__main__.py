"""All speed measurements: `make bench`, or python -m benchmarks."""

import sys

from benchmarks import codec_speed, throughput

if __name__ == "__main__":
    status = throughput.main([])
    print()
    sys.exit(status or codec_speed.main([]))
