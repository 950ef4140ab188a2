"""Bytes over the links and to and from HBM, by instruction."""

import pytest
from parallel.cost_model.snippets import ROWS, computation, module

from macro.parallel.cost_model.bytes_accessed import group_size

# Links


@pytest.mark.parametrize(
    "groups, size",
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("{{0,2},{1,3}}, dimensions={0}", 2),
        ("[2,8]<=[8,2]T(1,0), dimensions={2}", 8),
        ("[1,16]<=[16]", 16),
        ("mesh['x'=4,'y'=2] {'x'}, dimensions={1}", 4),
        ("mesh['x'=4,'y'=2] {'x','y'}", 8),
        ("mesh['x'=4,'y'=2] {'x':(1)2,'y'}", 4),
        ("{}", 32),
    ],
)
def test_group_sizes(groups, size):
    assert group_size(f", channel_id=1, replica_groups={groups}", 32) == size


@pytest.mark.parametrize(
    "line, kind, sent",
    [
        ("f32[32,16]{1,0} all-gather(%a), replica_groups=[1,4]<=[4], dimensions={0}", "all-gather", 3 * 512),
        (f"{ROWS} all-reduce(%a), replica_groups={{{{0,1,2,3}}}}, to_apply=%sum", "all-reduce", 768),
        (f"({ROWS}, {ROWS}) all-reduce(%a, %a), replica_groups={{}}, to_apply=%sum", "all-reduce", 2 * 768),
        ("f32[2,16]{1,0} reduce-scatter(%a), replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%sum",
         "reduce-scatter", 384),
        (f"{ROWS} all-to-all(%a), replica_groups=mesh['x'=4] {{'x'}}, dimensions={{0}}", "all-to-all", 384),
        (f"{ROWS} collective-permute(%a), source_target_pairs={{{{0,1}},{{1,0}}}}", "collective-permute", 512),
        (f"{ROWS} collective-permute(%a), source_target_pairs={{{{0,0}},{{1,1}}}}", "collective-permute", 0),
        (f"({ROWS}, f32[32,16]{{1,0}}) all-gather-start(%a), replica_groups=[1,4]<=[4]", "all-gather", 3 * 512),
        (f"{ROWS} all-reduce-start(%a), replica_groups={{{{0,1}}}}, to_apply=%sum", "all-reduce", 512),
        (f"({ROWS}, {ROWS}, u32[]{{:S(2)}}) collective-permute-start(%a), source_target_pairs={{{{0,1}}}}",
         "collective-permute", 512),
        (f"(({ROWS}), {ROWS}, u32[]) async-start(%a), calls=%wrapped", "all-to-all", 384),
    ],
)
def test_collectives(line, kind, sent):
    wrapped = computation("wrapped", f"%p = {ROWS} parameter(0)",
                          f"ROOT %x = {ROWS} all-to-all(%p), replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}")
    opcode = line.partition("(%a")[0].split()[-1]
    done = f"%d = {ROWS} {opcode.replace('-start', '-done')}(%c)" if opcode.endswith("-start") else "%d = () tuple()"
    found = module(f"%a = {ROWS} parameter(0)", f"%c = {line}", done, before=wrapped)
    assert found.collective_bytes == {kind: sent}


def test_tpus_reduce_scatter_is_an_all_reduce_in_a_fusion():
    inner = computation(
        "all-reduce-scatter", f"%p = {ROWS} parameter(0)", "%z = u32[] constant(0)",
        f"%r = {ROWS} all-reduce(%p), replica_groups={{{{0,1,2,3}}}}, to_apply=%sum",
        "ROOT %d = f32[2,16]{1,0} dynamic-slice(%r, %z, %z), dynamic_slice_sizes={2,16}",
    )
    found = module(f"%a = {ROWS} parameter(0)", "ROOT %f = f32[2,16]{1,0} fusion(%a), kind=kCustom, "
                   "calls=%all-reduce-scatter", before=inner)
    assert found.collective_bytes == {"reduce-scatter": 384}
    assert found.hbm_bytes == 512 + 128
    # Outside of a fusion the whole sum is made first.
    found = module(
        f"%a = {ROWS} parameter(0)", "%z = u32[] constant(0)",
        f"%r = {ROWS} all-reduce(%a), replica_groups={{{{0,1,2,3}}}}, to_apply=%sum",
        "ROOT %d = f32[2,16]{1,0} dynamic-slice(%r, %z, %z), dynamic_slice_sizes={2,16}",
    )
    assert found.collective_bytes == {"all-reduce": 768}


def test_a_collective_spread_over_fusions_counts_once():
    config = 'replica_groups=[1,4]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{}}'
    whole, state = "f32[32,16]{1,0}", f"({ROWS}, f32[32,16]{{1,0}})"
    parts = f"%p = {ROWS} parameter(0)", f"%g = {whole} all-gather(%p), {config}"
    inner = computation("start", *parts,
                        f'ROOT %s = {state} custom-call(%g), custom_call_target="AsyncCollectiveStart"')
    inner += computation(
        "step", *parts, f"%w = {whole} parameter(1)", f"%x = {ROWS} parameter(2)", f"%n = {ROWS} negate(%x)",
        f"ROOT %t = ({ROWS}, {ROWS}, {whole}) tuple(%n, %p, %g)",
    )
    inner += computation("done", *parts, f"%w = {whole} parameter(1)",
                         f'ROOT %d = {whole} custom-call(%p, %w, %g), custom_call_target="AsyncCollectiveDone"')
    found = module(
        f"%a = {ROWS} parameter(0)", f"%s = {state} fusion(%a), kind=kCustom, calls=%start",
        f"%s0 = {ROWS} get-tuple-element(%s), index=0", f"%s1 = {whole} get-tuple-element(%s), index=1",
        f"%f = ({ROWS}, {ROWS}, {whole}) fusion(%s0, %s1, %a), kind=kOutput, calls=%step",
        f"%f2 = {whole} get-tuple-element(%f), index=2",
        f"ROOT %d = {whole} fusion(%s0, %f2), kind=kCustom, calls=%done", before=inner,
    )
    assert found.collective_bytes == {"all-gather": 3 * 512}
    # The gather reads its part and writes the whole; the step reads and writes what it negates.
    assert found.hbm_bytes == 512 + 4 * 512 + 2 * 512


# HBM


def test_only_hbm_counts_and_padding_with_it():
    chip = "f32[8,128]{1,0:T(8,128)S(1)}"
    found = module(
        "%a = f32[8,100]{1,0:T(8,128)} parameter(0)",
        f"%c = ({chip}, f32[8,100]{{1,0:T(8,128)}}, u32[]{{:S(2)}}) copy-start(%a)",
        f"%d = {chip} copy-done(%c)", f"%e = {chip} negate(%d)", f"%b = {chip} bitcast(%e)",
        "ROOT %f = f32[8,128]{1,0:T(8,128)} copy(%b)",
    )
    assert found.hbm_bytes == 4096 + 4096


STACK = "f32[7,8,16]{2,1,0}"


def test_slices_of_a_stack_cost_a_slice():
    one = "f32[1,8,16]{2,1,0}"
    entry = (f"%a = {STACK} parameter(0)", "%i = s32[] parameter(1)", f"%u = {one} parameter(2)")
    cut = f"{one} dynamic-slice(%a, %i, %i, %i), dynamic_slice_sizes={{1,8,16}}"
    put = f"{STACK} dynamic-update-slice(%a, %u, %i, %i, %i)"
    index = 3 * 4
    assert module(*entry, f"ROOT %s = {cut}").hbm_bytes == 2 * 512 + index
    assert module(*entry, f"ROOT %s = {put}").hbm_bytes == 2 * 512
    inner = computation("cut", *entry[:2], f"%c = {STACK} convert(%a)", f"%s = {cut.replace('%a', '%c')}",
                        f"ROOT %n = {one} negate(%s)")
    inner += computation("put", *entry, f"%n = {one} negate(%u)", f"%s = {put.replace('%u', '%n')}",
                         f"ROOT %b = {STACK} bitcast(%s)")
    fused = f"ROOT %f = {one} fusion(%a, %i), kind=kLoop, calls=%cut"
    assert module(*entry, fused, before=inner).hbm_bytes == 2 * 512 + 4
    fused = f"ROOT %f = {STACK} fusion(%a, %i, %u), kind=kLoop, calls=%put"
    assert module(*entry, fused, before=inner).hbm_bytes == 2 * 512 + 4


def test_a_value_used_whole_and_in_slices_costs_the_whole():
    inner = computation(
        "both", f"%a = {STACK} parameter(0)", "%s = f32[1,8,16]{2,1,0} slice(%a), slice={[0:1], [0:8], [0:16]}",
        f"%n = {STACK} negate(%a)", f"ROOT %t = (f32[1,8,16]{{2,1,0}}, {STACK}) tuple(%s, %n)",
    )
    found = module(f"%a = {STACK} parameter(0)",
                   f"ROOT %f = (f32[1,8,16]{{2,1,0}}, {STACK}) fusion(%a), kind=kLoop, calls=%both", before=inner)
    assert found.hbm_bytes == (7 + 7 + 1) * 512
