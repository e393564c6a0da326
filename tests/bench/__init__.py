"""Slow proofs: what takes minutes, or another server, to show.

    python -m tests.bench.flood                     a flood does not starve a quiet key
    python -m tests.bench.equality                  each of 100,000 vectors is its own text's
    python -m tests.bench.soak --minutes 30         memory does not grow under a mixed load
    python -m tests.bench.peers llama-server --folder DIR --bench    the same load on a peer

Each starts what it measures, on loopback and in a folder of its own, prints a small table, and
exits 1 when what it should prove is not so. All load is drawn from a seed. On a shared machine
speed drifts by a third within minutes: figures are compared within a round, and rounds alternate.
`test_proofs.py` runs small sizes of them with the suite and asserts no seconds.
"""
