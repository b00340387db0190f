"""Seeds depend on the run's seed, the stream and the path, and on nothing else."""

import itertools

from openrlhf.utils.seeds import Stream, derive_seed


def test_paths_of_a_stream_have_seeds_of_their_own():
    """NumPy pads with zeros, so (1,) and (1, 0) are one path: within a stream all paths are of one length."""
    for stream in Stream:
        seeds = {derive_seed(42, stream, *path) for path in itertools.product(range(20), range(20))}
        assert len(seeds) == 400
        assert all(0 <= seed < 2**32 for seed in seeds)


def test_seeds_are_repeated_and_differ_between_runs():
    assert derive_seed(42, Stream.TRAIN_ROLLOUT, 3, 5) == derive_seed(42, Stream.TRAIN_ROLLOUT, 3, 5)
    assert derive_seed(42, Stream.TRAIN_ROLLOUT, 3, 5) != derive_seed(43, Stream.TRAIN_ROLLOUT, 3, 5)
    assert derive_seed(42, Stream.TRAIN_ROLLOUT, 3, 5) != derive_seed(42, Stream.EVAL_ROLLOUT, 3, 5)
