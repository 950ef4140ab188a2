"""Rounds of loops, read from conditions as TPU prints them: without a count."""

import pytest
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
DOWN = "%next = s32[] subtract(%i, %three)"
TRIPLED = "%more = s32[] multiply(%i, %three)\n  %next = s32[] add(%more, %one)"
FUSED = "ROOT %f = pred[] fusion(%i, %ten), kind=kLoop, calls=%less"
LESS = computation("less", "%a = s32[] parameter(0)", "%b = s32[] parameter(1)",
                   "ROOT %c = pred[] compare(%a, %b), direction=LT")


@pytest.mark.parametrize(
    "condition, options, rounds",
    [
        ("ROOT %c = pred[] compare(%i, %ten), direction=LT", {}, 10),
        ("ROOT %c = pred[] compare(%i, %ten), direction=LE", {}, 11),
        ("ROOT %c = pred[] compare(%ten, %i), direction=GT", {}, 10),
        ("ROOT %c = pred[] compare(%i, %bound), direction=LT", {}, 12),
        ("ROOT %c = pred[] compare(%i, %ten), direction=LT", {"step": BY_THREE}, 4),
        ("ROOT %c = pred[] compare(%i, %bound), direction=NE", {"step": BY_THREE}, 4),
        ("ROOT %c = pred[] compare(%i, %ten), direction=NE", {"step": BY_THREE}, None),
        ("ROOT %c = pred[] compare(%i, %ten), direction=GT", {"step": DOWN, "first": 20}, 4),
        ("ROOT %c = pred[] compare(%i, %ten), direction=GE", {"step": DOWN, "first": 22}, 5),
        ("ROOT %c = pred[] compare(%i, %ten), direction=LT", {"first": 11}, 0),
        ("ROOT %c = pred[] compare(%i, %ten), direction=LT", {"step": "%next = s32[] multiply(%i, %three)"}, None),
        ("ROOT %c = pred[] compare(%i, %ten), direction=LT", {"step": TRIPLED}, None),
        ("ROOT %c = pred[] compare(%i, %ten), direction=LT", {"step": DOWN}, None),
        (FUSED, {"before": LESS}, 10),
    ],
)
def test_rounds_follow_from_the_condition(condition, options, rounds):
    assert loop(condition, **options) == rounds


def test_a_bound_that_changes_is_no_bound():
    assert loop("ROOT %c = pred[] compare(%bound, %ten), direction=GT") is None
    state = "(s32[], s32[])"
    parts = (f"%p = {state} parameter(0)", "%i = s32[] get-tuple-element(%p), index=0",
             "%bound = s32[] get-tuple-element(%p), index=1")
    body = computation("body", *parts, "%one = s32[] constant(1)", "%next = s32[] add(%i, %one)",
                       f"ROOT %t = {state} tuple(%next, %next)")
    cond = computation("cond", *parts, "ROOT %c = pred[] compare(%i, %bound), direction=LT")
    found = module("%first = s32[] constant(0)", "%last = s32[] constant(12)", f"%t = {state} tuple(%first, %last)",
                   f"ROOT %w = {state} while(%t), condition=%cond, body=%body", before=body + cond)
    assert found.loops == {"w": None} and len(found.unknown) == 1


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
