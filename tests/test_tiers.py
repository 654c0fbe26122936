"""Tiers: the tables of the Exoware store."""

from __future__ import annotations

import pytest

from exo_stream.limits import KIB, MIB
from exo_stream.storage.tiers import (
    SUB_BLOCK_SIZE,
    bloom_bits_per_key,
    compute_tier,
    target_block_size,
)

MINUTE = 60 * 1_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOW = 1_700_000_000_000_000


def test_a_sub_block_has_the_same_size_at_every_tier() -> None:
    assert SUB_BLOCK_SIZE == 64 * KIB


def test_blocks_double_with_each_tier_up_to_two_gibibytes() -> None:
    sizes = [target_block_size(tier) // MIB for tier in range(8)]
    assert sizes == [64, 128, 256, 512, 1024, 2048, 2048, 2048]


def test_young_blocks_have_the_finest_filters_and_old_ones_none() -> None:
    assert [bloom_bits_per_key(tier) for tier in range(7)] == [14, 10, 10, 10, 0, 0, 0]


@pytest.mark.parametrize(
    ("age", "tier"),
    [
        pytest.param(30 * MINUTE, 0, id="half an hour"),
        pytest.param(6 * HOUR, 1, id="six hours"),
        pytest.param(24 * HOUR, 2, id="a day"),
        pytest.param(3 * DAY, 3, id="three days"),
        pytest.param(15 * DAY, 4, id="half a month"),
        pytest.param(60 * DAY, 5, id="two months"),
        pytest.param(0, 0, id="now"),
        pytest.param(-DAY, 0, id="a clock set back"),
        pytest.param(4 * HOUR - 1, 0, id="just not four hours"),
        pytest.param(4 * HOUR, 1, id="exactly four hours"),
        pytest.param(12 * HOUR, 2, id="exactly twelve hours"),
        pytest.param(36 * HOUR, 3, id="exactly a day and a half"),
        pytest.param(4 * DAY, 4, id="exactly four days"),
        pytest.param(30 * DAY, 5, id="exactly thirty days"),
    ],
)
def test_the_tier_goes_by_age_and_a_boundary_belongs_to_the_next(age: int, tier: int) -> None:
    assert compute_tier(NOW - age, NOW) == tier
