"""Rounds of loops, read from conditions as TPU prints them: without a count."""

from parallel.cost_model.snippets import computation, module


def loop(condition: str, step: str = "%next = s32[] add(%i, %one)", first: int = 0, before: str = "") -> int | None:
    """Rounds of a loop over (counter, bound of 12) with these lines as its condition."""
    state = "(s32[], s32[])"
    found = module(
        f"%first = s32[] constant({first})", "%c = s32[] copy(%first)", "%twelve = s32[] constant(12)",
        f"%t = {state} tuple(%c, %twelve)", f"ROOT %w = {state} while(%t), condition=%cond, body=%body",
        before=before + computation(
            "body", f"%p = {state} parameter(0)", "%i = s32[] get-tuple-element(%p), index=0",
            "%bound = s32[] get-tuple-element(%p), index=1", "%one = s32[] constant(1)", "%three = s32[] constant(3)",
            step, f"ROOT %t = {state} tuple(%next, %bound)",
        ) + computation(
            "cond", f"%p = {state} parameter(0)", "%i = s32[] get-tuple-element(%p), index=0",
            "%bound = s32[] get-tuple-element(%p), index=1", "%ten = s32[] constant(10)", condition,
        ),
    )
    (rounds,) = found.loops.values()
    return rounds


BY_THREE = "%next = s32[] add(%three, %i)"
DOWN = "%next = s32[] subtract(%i, %one)"
LESS = "ROOT %c = pred[] compare(%i, %ten), direction=LT"
FUSED = "ROOT %f = pred[] fusion(%i, %ten), kind=kLoop, calls=%less"
FUSED_LESS = computation("less", "%a = s32[] parameter(0)", "%b = s32[] parameter(1)",
                         "ROOT %c = pred[] compare(%a, %b), direction=LT")


def test_loops_that_count_by_one_to_a_constant():
    assert loop(LESS) == 10
    assert loop(LESS, "%next = s32[] add(%one, %i)", first=4) == 6
    assert loop(LESS, first=11) == 0
    assert loop(FUSED, before=FUSED_LESS) == 10


def test_other_loops_have_no_known_count():
    for step in (BY_THREE, DOWN, "%next = s32[] multiply(%i, %three)", "%next = s32[] add(%bound, %one)"):
        assert loop(LESS, step) is None, step
    for condition in (
        LESS.replace("LT", "NE"), LESS.replace("%ten", "%bound"), "ROOT %c = pred[] compare(%ten, %i), direction=LT",
        "%d = pred[] compare(%i, %ten), direction=LT\n  ROOT %n = pred[] not(%d)",
    ):  # fmt: skip
        assert loop(condition) is None, condition


def test_the_condition_runs_once_more():
    square = "f32[4,4]{1,0}"
    state = f"(s32[], {square})"
    parts = f"%p = {state} parameter(0)", "%i = s32[] get-tuple-element(%p), index=0", \
            f"%x = {square} get-tuple-element(%p), index=1"
    body = computation("body", *parts, "%one = s32[] constant(1)", "%next = s32[] add(%i, %one)",
                       f"ROOT %t = {state} tuple(%next, %x)")
    cond = computation("cond", *parts, "%five = s32[] constant(5)",
                       f"%d = {square} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
                       "ROOT %c = pred[] compare(%i, %five), direction=LT")
    found = module("%first = s32[] constant(0)", f"%x = {square} parameter(0)", f"%t = {state} tuple(%first, %x)",
                   f"ROOT %w = {state} while(%t), condition=%cond, body=%body", before=body + cond)
    assert found.loops == {"w": 5} and found.flops == 6 * 2 * 4**3
