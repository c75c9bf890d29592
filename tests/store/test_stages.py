"""Long work on a store tells how far it has come."""

from collections import defaultdict

import pytest

from signbridge.store import StoreWriter, merge_stores, open_store


class Listener:
    """Remembers what it is told."""

    def __init__(self):
        self.told = defaultdict(list)

    def __call__(self, what, done, total):
        self.told[what].append((done, total))

    def stages(self):
        """The stages in their order, after checking that each went through to its end."""
        for what, counts in self.told.items():
            totals = {total for _, total in counts}
            done = [done for done, _ in counts]
            assert done == sorted(done), what
            assert done[0] > 0, what
            assert totals == {done[-1]}, what
        return list(self.told)


def writer(producer, path, listener, **options):
    spec, samples, provenance, data = producer.inputs(n=150)
    return StoreWriter(
        path, spec, samples, provenance, shard_size=16, progress=listener, **options
    ), data


@pytest.mark.parametrize("keep_shards", [False, True])
def test_from_shards_to_the_verified_file(keep_shards, producer, tmp_path):
    listener = Listener()
    opened, data = writer(producer, tmp_path / "s.h5", listener, keep_shards=keep_shards)
    with opened:
        for shard in opened.pending():
            opened.write_shard(shard.index, producer.rows(data, shard.start, shard.stop))
        assert listener.stages() == ["verifying finished shards"]
        assert listener.told["verifying finished shards"] == [(k, 10) for k in range(1, 11)]
        opened.consolidate()
    assert listener.stages()[-1] == "verifying the file"
    # Without kept shards the file has grown meanwhile.
    every = [(64, 150), (128, 150), (150, 150)] if keep_shards else []
    assert listener.told["making the file"] == every

    again = Listener()
    with writer(producer, tmp_path / "s.h5", again)[0] as opened:
        assert opened.complete
    assert again.stages() == ["verifying what is there"]


def test_merging(producer, make_store, tmp_path):
    one, two = make_store("1.h5", n=70), make_store("2.h5", n=80, first=70)
    listener = Listener()
    merge_stores([one, two], tmp_path / "both.h5", progress=listener)
    assert listener.stages() == [
        f"verifying {one}",
        f"verifying {two}",
        "making the file",
        "verifying the file",
    ]


def test_a_full_check_on_opening(make_store):
    told = []
    with open_store(make_store("s.h5", n=70), "full", lambda *count: told.append(count)):
        pass
    assert told[-1][0] == told[-1][1] > 0
