"""torch.distributed with Gloo, as one process of a launch, for `cargo xtask bench dist`.

    bench_dist.py MB

All-reduces a tensor of MB megabytes. Rank 0 prints one line of JSON, as
crates/mm-dist/examples/bench_all_reduce.rs does.

Made for torch 2.13.
"""

import json
import sys
import time

import torch
import torch.distributed as dist

ITERATIONS, WARMUP = 10, 2

dist.init_process_group("gloo")
x = torch.ones(int(sys.argv[1]) * 250_000)
seconds = []
for _ in range(WARMUP + ITERATIONS):
    dist.barrier()
    started = time.perf_counter()
    dist.all_reduce(x)
    seconds.append(time.perf_counter() - started)
if dist.get_rank() == 0:
    print(json.dumps({"seconds": seconds[WARMUP:]}))
dist.barrier()
dist.destroy_process_group()
