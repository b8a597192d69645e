"""faiss-cpu and hnswlib on rows in a file, for `cargo xtask bench search`.

    search.py faiss-flat|faiss-hnsw|hnswlib ROWS QUERIES TRUTH

ROWS and QUERIES are files of f32 unit rows of 512 numbers; TRUTH has the 10 nearest rows of each
query as u64. Builds, then searches all queries with each beam width, in two threads. Prints one
line of JSON: seconds of the build, resident memory in MB, and recall@10 and queries per second for
each width.
"""

import json
import sys
import time

import faiss
import hnswlib
import numpy as np

from memory import resident_mb

DIM, K, THREADS = 512, 10, 2
CONNECTIVITY, EXPANSION = 16, 128
WIDTHS = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]


class Flat:
    widths = [0]

    def build(self, rows):
        self.index = faiss.IndexFlatIP(DIM)
        self.index.add(rows)

    def search(self, queries, _):
        return self.index.search(queries, K)[1]


class FaissHnsw:
    widths = WIDTHS

    def build(self, rows):
        self.index = faiss.IndexHNSWFlat(DIM, CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EXPANSION
        self.index.add(rows)

    def search(self, queries, width):
        self.index.hnsw.efSearch = width
        return self.index.search(queries, K)[1]


class Hnswlib:
    widths = WIDTHS

    def build(self, rows):
        self.index = hnswlib.Index("ip", DIM)
        self.index.init_index(len(rows), M=CONNECTIVITY, ef_construction=EXPANSION)
        self.index.set_num_threads(THREADS)
        self.index.add_items(rows)

    def search(self, queries, width):
        self.index.set_ef(width)
        return self.index.knn_query(queries, K)[0]


def main():
    name, rows, queries, truth = sys.argv[1:]
    faiss.omp_set_num_threads(THREADS)
    rows = np.fromfile(rows, np.float32).reshape(-1, DIM)
    queries = np.fromfile(queries, np.float32).reshape(-1, DIM)
    truth = np.fromfile(truth, np.uint64).reshape(-1, K)
    before = resident_mb() - rows.nbytes / 2**20  # without the input, which is freed
    peer = {"faiss-flat": Flat, "faiss-hnsw": FaissHnsw, "hnswlib": Hnswlib}[name]()
    begun = time.perf_counter()
    peer.build(rows)
    build = time.perf_counter() - begun
    del rows
    found = []
    for width in peer.widths:
        peer.search(queries[:16], width)
        begun = time.perf_counter()
        ids = peer.search(queries, width)
        seconds = time.perf_counter() - begun
        hits = sum(len(set(a) & set(b)) for a, b in zip(ids.tolist(), truth.tolist()))
        found.append(
            {"width": width, "recall": hits / truth.size, "per_second": len(queries) / seconds}
        )
    memory = resident_mb() - before
    print(json.dumps({"build_seconds": build, "memory_mb": memory, "searches": found}))


main()
