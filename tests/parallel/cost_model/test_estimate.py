"""What the compiler says of a program that is too large; tests/test_compile.py has the compiler say it."""

import dataclasses

import pytest

from macro.parallel.chips import chip
from macro.parallel.cost_model.cost_analysis import Costs
from macro.parallel.cost_model.estimate import _refused, roofline

REPORT = """Memory Space: default (color=0)
Total bytes: 147460210688 (137.33GiB)
  cumulative_size;       size;       offset; used_by_n_values; shapes_list
  ------------------------------------------------------------
   34.33GiB( 50%);   34.33GiB;        16384;                2; bf16[9000000,1024], f32[9000000,1024]
   34.33GiB( 50%);     512B;              0;                1; f32[3]

   35.33GiB(100%);   17.17GiB;            0;                1; 3xf32[9000000,512]
    4.00MiB(100%);  900.00MiB;            0;                1; f32[15,1024]

Memory Space: vmem (color=1)
Total bytes: 4194304 (4.00MiB)
   99.00TiB(100%);   99.00TiB;            0;                1; f32[1024,1024]
"""


def test_the_largest_allocations_in_hbm_are_named_in_order():
    found = _refused(REPORT, chip("v5e"))
    assert not found.fits and found.peak_bytes == 147460210688 and found.seconds is None
    assert found.largest == (
        "34.33 GiB bf16[9000000,1024], f32[9000000,1024]",
        "17.17 GiB 3xf32[9000000,512]",
        "900.00 MiB f32[15,1024]",
    )
    lines = found.lines()
    assert "DOES NOT FIT: 137.33 GiB of 15.75 GiB usable" in lines[0] and len(lines) == 4


def test_roofline():
    nothing, sent = Costs(0, 0, 0, {}, {}, {}, ()), {"all-gather": 4 * 10**11, "all-reduce": 2 * 10**11}
    for change, seconds, bound_by in (
        ({"flops": 197 * 10**12}, 1.0, "compute"),
        ({"flops": 197 * 10**12, "hbm_bytes": 2 * 819 * 10**9}, 2.0, "memory"),
        ({"hbm_bytes": 819 * 10**9, "collective_bytes": sent}, 3.0, "interconnect"),
    ):
        assert roofline(dataclasses.replace(nothing, **change), chip("v5e")) == (pytest.approx(seconds), bound_by)
