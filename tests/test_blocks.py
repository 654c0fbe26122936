"""Blocks, filters, runs, the cache and the planning of merges: the pure parts of the table."""

from __future__ import annotations

from array import array
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.model import Row, row_key
from exo_stream.storage.blocks import Block, Fences
from exo_stream.storage.cache import SubBlock, SubBlockCache
from exo_stream.storage.filters import Filter
from exo_stream.storage.merge_plan import choose, components, slices
from exo_stream.storage.run import Run, depth, runs_of

_ids = count(1)


def block(*keys: bytes, run: int = 1, keyspace: int = 0, size: int = 10, newest: int = 1) -> Block:
    """A block with one sub-block of two rows at each key but the last, which is its last key."""
    first_keys = [row_key(keyspace, key) for key in keys[:-1]]
    number = next(_ids)
    places = range(len(first_keys))
    fences = Fences(
        first_keys,
        row_key(keyspace, keys[-1]),
        array("Q", [(number << 20) + at for at in places]),
        array("Q", [2 for _ in places]),
        array("Q", [size for _ in places]),
    )
    return Block(
        id=number,
        run=run,
        tier=0,
        entries=2 * len(first_keys),
        size=size * len(first_keys),
        checksum=0,
        folded_through=newest,
        created_at=0,
        fences=fences,
        filter=None,
    )


def key(text: bytes) -> bytes:
    return row_key(0, text)


def test_fences_survive_being_written() -> None:
    fences = block(b"b", b"d", b"f").fences
    loaded = Fences.loads(fences.dumps())
    assert (loaded.first_keys, loaded.last_key) == (fences.first_keys, fences.last_key)
    assert (loaded.ids, loaded.rows, loaded.sizes) == (fences.ids, fences.rows, fences.sizes)


def test_a_key_has_one_sub_block_or_none() -> None:
    it = block(b"b", b"d", b"f")
    found = [it.sub_block_of(key(k)) for k in (b"a", b"b", b"c", b"d", b"f", b"f\0")]
    assert found == [None, 0, 0, 1, 1, None]


@pytest.mark.parametrize(
    ("start", "end", "places"),
    [
        (b"", b"z", range(2)),
        (b"a", b"b", range(0)),
        (b"a", b"b\0", range(1)),
        (b"c", b"d", range(1)),
        (b"c", b"d\0", range(2)),
        (b"d", b"e", range(1, 2)),
        (b"f", b"g", range(1, 2)),
        (b"f\0", b"g", range(0)),
    ],
)
def test_a_range_touches_only_the_sub_blocks_it_may(
    start: bytes, end: bytes, places: range
) -> None:
    it = block(b"b", b"d", b"f")
    assert list(it.sub_blocks_between(key(start), key(end))) == list(places)


@given(st.sets(st.binary(max_size=20), min_size=1, max_size=200))
def test_a_filter_never_denies_a_key_also_after_being_written(keys: set[bytes]) -> None:
    bloom = Filter.sized(len(keys), 10)
    bloom.add(keys)
    assert all(k in Filter.loads(bloom.dumps()) for k in keys)


def test_what_is_no_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="head"):
        Filter.loads(b"12345678")


def test_a_filter_seldom_admits_a_stranger() -> None:
    bloom = Filter.sized(1000, 14)
    bloom.add([b"known %d" % number for number in range(1000)])
    assert sum(b"stranger %d" % number in bloom for number in range(10_000)) < 100


def test_a_run_finds_the_block_of_a_key() -> None:
    left, right = block(b"b", b"c"), block(b"e", b"g")
    run = Run([right, left])
    assert [run.block_of(key(k)) for k in (b"a", b"b", b"d", b"e", b"z")] == [
        None,
        left,
        left,
        right,
        right,
    ]
    assert list(run.blocks_between(key(b"c"), key(b"f"))) == [left, right]
    assert list(run.blocks_between(key(b"d"), key(b"e"))) == []
    assert list(run.blocks_between(key(b"c\0"), key(b"e\0"))) == [right]


def test_blocks_of_a_run_may_not_overlap() -> None:
    with pytest.raises(AssertionError):
        Run([block(b"a", b"c"), block(b"b", b"d")])


def test_runs_are_ordered_by_their_newest_rows() -> None:
    old, new, also_new = block(b"a", b"b", run=1), block(b"a", b"b", run=9, newest=7), None
    also_new = block(b"c", b"d", run=9, newest=3)
    runs = runs_of([old, new, also_new])
    assert [run.id for run in runs] == [9, 1]
    assert list(runs[0].blocks) == [new, also_new]


def test_depth_counts_runs_at_the_most_crowded_key() -> None:
    runs = [Run([block(b"a", b"c")]), Run([block(b"c", b"e")]), Run([block(b"f", b"g")])]
    assert depth(runs) == 2
    assert depth(runs[2:]) == 1
    assert depth([]) == 0


def test_a_sub_block_finds_rows_by_key_and_by_range() -> None:
    sub_block = SubBlock([b"a", b"c", b"e"], [1, 2, 3], [b"x", None, b"z"])
    assert sub_block.row(b"c") == Row(b"c", 2, None)
    assert (sub_block.row(b"b"), sub_block.row(b"f")) == (None, None)
    assert sub_block.rows(*sub_block.between(b"b", b"e")) == [Row(b"c", 2, None)]
    assert sub_block.rows(*sub_block.between(b"e", b"b")) == []


def test_the_cache_forgets_the_least_recently_used_within_its_bytes() -> None:
    sub_block = SubBlock([b"a"], [1], [b"x" * 1000])
    size = sub_block.memory_bytes()
    cache = SubBlockCache(3 * size)
    for number in (1, 2, 3):
        cache.put(number, sub_block)
    assert cache.get(1) is sub_block
    cache.put(4, sub_block)
    assert [cache.get(number) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert cache.bytes_held == 3 * size
    cache.put(4, sub_block)
    assert cache.bytes_held == 3 * size
    cache.discard([1, 99])
    assert (cache.get(1), cache.bytes_held) == (None, 2 * size)


def test_the_cache_takes_nothing_larger_than_itself() -> None:
    cache = SubBlockCache(100)
    cache.put(1, SubBlock([b"a"], [1], [b"x" * 1000]))
    assert (cache.get(1), cache.bytes_held) == (None, 0)


def overlapping(*sizes: int) -> list[Run]:
    """Runs over the same keys, the newest first."""
    newest = len(sizes)
    return [
        Run([block(b"a", b"z", run=newest - at, size=size, newest=newest - at)])
        for at, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        pytest.param([1, 1], 0, id="few"),
        pytest.param([1, 1, 1, 1], 0, id="just few enough"),
        pytest.param([1, 1, 1, 1, 1], 5, id="all of one size"),
        pytest.param([1, 1, 1, 1, 9], 4, id="an old one that is too large"),
        pytest.param([1, 1, 5, 50, 500], 2, id="each much larger than the newer"),
        pytest.param([1, 1, 4, 12, 36], 5, id="each just small enough"),
    ],
)
def test_the_newest_runs_are_merged_as_far_as_it_pays(sizes: list[int], chosen: int) -> None:
    runs = overlapping(*sizes)
    assert list(choose(runs, 4)) == runs[:chosen]


def test_runs_that_do_not_overlap_are_left_until_they_are_very_many() -> None:
    runs = [Run([block(b"%03d" % n, b"%03d+" % n, run=n, newest=n)]) for n in range(17, 0, -1)]
    assert list(choose(runs[1:], 4)) == []
    assert list(choose(runs, 4)) == runs


def test_blocks_that_overlap_nothing_need_no_rewriting() -> None:
    a, b, c, d = block(b"a", b"c"), block(b"b", b"d"), block(b"e", b"g"), block(b"x", b"z")
    assert components([Run([a, c]), Run([b, d])]) == [[a, b], [c], [d]]


def test_slices_cover_everything_once_and_keep_to_their_bounds() -> None:
    left = block(b"a", b"c", b"e", b"g", b"i")
    right = block(b"b", b"d", b"f", b"h")
    found = list(slices([left, right], rows_max=4, bytes_max=1000))
    assert found[0].start == key(b"a")
    assert found[-1].end == row_key(1, b"")
    assert all(this.end == following.start for this, following in pairwise(found))
    assert [part.rows for part in found] == [4, 4, 4, 2]


def test_a_slice_is_bounded_in_bytes_too() -> None:
    found = list(slices([block(b"a", b"b", b"c", b"d")], rows_max=1000, bytes_max=20))
    assert [part.rows for part in found] == [4, 2]


def test_sub_blocks_that_begin_at_one_key_stay_in_one_slice() -> None:
    found = list(slices([block(b"a", b"c", b"d"), block(b"a", b"c")], rows_max=2, bytes_max=1000))
    assert [part.start for part in found] == [key(b"a"), key(b"c")]
