"""The reader of HLO text: shapes, instructions, computations, in the styles of CPU and TPU."""

import jax
import jax.numpy as jnp
import pytest

from macro.parallel.cost_model.hlo import arrays, compile_and_read, elements_of_tuple, parse

CPU = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[4,8]{1,0})->f32[4]{0}}

FileNames
1 "a (file).py"

StackFrames
1 {file_location_id=1 parent_frame_id=1}


%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

ENTRY %main.1 (a.1: f32[4,8]) -> f32[4] {
  %a.1 = f32[4,8]{1,0} parameter(0), metadata={op_name="a"}
  %zero = f32[] constant(0)
  %table = s32[2,2]{1,0} constant({ { 1, 2 }, { 3, 4 } })
  ROOT %out = f32[4]{0} reduce(%a.1, %zero), dimensions={1}, to_apply=%sum, \
metadata={op_name="jit(f)/sum(x, y)/{odd}" source_line=3}
}
"""
TPU = """HloModule jit_g, is_scheduled=true, num_partitions=8, replica_count=2

%work (p: bf16[2,256]) -> bf16[2,256] {
  ROOT %p = bf16[2,256]{1,0:T(2,128)(2,1)} parameter(0)
}, execution_thread="sparsecore"

ENTRY %main.2_spmd (p.1: bf16[2,256]) -> bf16[2,256] {
  %p.1 = bf16[2,256]{1,0:T(2,128)(2,1)} parameter(0)
  %go = ((bf16[2,256]{1,0:T(2,128)(2,1)}), bf16[2,256]{1,0:T(2,128)(2,1)S(1)}, /*index=2*/u32[]{:S(8)}) \
async-start(%p.1), async_execution_thread="sparsecore", calls=%work
  %done = bf16[2,256]{1,0:T(2,128)(2,1)S(1)} async-done(%go)
  %many = (bf16[2,256]{1,0}, /*index=1*/bf16[2,256]{1,0}) custom-call(%done, /*index=1*/%p.1), \
custom_call_target="Two", called_computations={%work, %main.2_spmd}, backend_config={"a":"%x(","b":{}}
  ROOT %first = bf16[2,256]{1,0} get-tuple-element(%many), index=0
}
"""


def test_reads_the_text_of_cpu():
    module = parse(CPU)
    assert (set(module.computations), module.entry, module.devices) == ({"sum", "main.1"}, "main.1", 1)
    main = module.computations["main.1"]
    assert main.root.name == "out" and main.root.opcode == "reduce"
    assert main.root.operands == ("a.1", "zero")
    assert main.root.called("to_apply") == ["sum"]
    assert main.root.attribute("dimensions") == "{1}" and main.root.attribute("nothing") is None
    assert main.root.label == "out (jit(f)/sum(x, y)/{odd})"
    assert main["table"].operands == () and main["table"].arrays[0].dims == (2, 2)
    assert main.parameters == {0: main["a.1"]}
    assert main.users["zero"] == [(main.root, 1)]


def test_reads_the_text_of_tpu():
    module = parse(TPU)
    assert module.devices == 16
    assert module.computations["work"].root.opcode == "parameter"
    main = module.computations["main.2_spmd"]
    assert main["go"].opcode == "async-start" and main["go"].called("calls") == ["work"]
    assert main["many"].operands == ("done", "p.1")
    assert main["many"].called("called_computations") == ["work", "main.2_spmd"]
    assert [array.space for array in main["go"].arrays] == [0, 1, 8]


def test_operands_may_carry_their_shapes():
    text = CPU.replace("reduce(%a.1, %zero)", "reduce(f32[4,8]{1,0:T(8,128)} %a.1, f32[] %zero)")
    assert parse(text).computations["main.1"].root.operands == ("a.1", "zero")


def test_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("not HLO {\n}\n")


@pytest.mark.parametrize(
    "text, elements, size, stored, space",
    [
        ("f32[]", 1, 4, 4, 0),
        ("s32[]{:T(128)S(6)}", 1, 4, 512, 6),
        ("bf16[16,3]{1,0:T(8,128)(2,1)}", 48, 96, 16 * 128 * 2, 0),
        ("bf16[16,3]{0,1:T(8,128)(2,1)S(1)}", 48, 96, 8 * 128 * 2, 1),
        ("pred[5,7]{1,0}", 35, 35, 35, 0),
        ("s4[3]{0}", 3, 2, 2, 0),
        ("f8e4m3fn[2,2]", 4, 4, 4, 0),
        ("c64[2]{0}", 2, 16, 16, 0),
        ("token[]", 1, 0, 0, 0),
        ("f32[<=4,2]{1,0}", 8, 32, 32, 0),
        ("bf16[0,8]{1,0}", 0, 0, 0, 0),
    ],
)
def test_shapes(text, elements, size, stored, space):
    (array,) = arrays(text)
    assert (array.elements, array.size, array.stored, array.space) == (elements, size, stored, space)


def test_tuples_are_split_one_level_deep():
    shape = "((f32[2]{0:T(8)}, s32[]), f32[4,2]{1,0}, /*index=2*/u32[]{:S(2)})"
    assert elements_of_tuple(shape) == ["(f32[2]{0:T(8)}, s32[])", "f32[4,2]{1,0}", "u32[]{:S(2)}"]
    assert elements_of_tuple("()") == [] and elements_of_tuple("f32[2]{0}") == ["f32[2]{0}"]
    assert len(arrays(shape)) == 4


def test_what_jax_compiles_can_be_read():
    lowered = jax.jit(lambda a, b: jnp.tanh(a @ b)).lower(*[jax.ShapeDtypeStruct((64, 64), jnp.float32)] * 2)
    compiled, text = compile_and_read(lowered)
    assert compiled(jnp.eye(64), jnp.ones((64, 64))).shape == (64, 64)
    for each in (text, compiled.as_text()):
        module = parse(each)
        opcodes = [x.opcode for y in module.computations.values() for x in y.instructions.values()]
        assert opcodes.count("dot") == 1 and module.computations[module.entry].root.arrays[0].dims == (64, 64)
