"""Small modules of HLO text, written by hand, for the tests of what a program costs."""

from macro.parallel.cost_model import cost_analysis as costs

ROWS = "f32[8,16]{1,0}"  # 512 bytes
SUM = "%sum (x: f32[], y: f32[]) -> f32[] {\n  %x = f32[] parameter(0)\n  %y = f32[] parameter(1)\n" \
      "  ROOT %s = f32[] add(%x, %y)\n}\n"


def computation(name: str, *lines: str) -> str:
    return f"%{name} (p: f32[]) -> f32[] {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def module(*lines: str, before: str = "", devices: int = 4) -> costs.Costs:
    """Costs of a module whose entry has these lines."""
    head = f"HloModule m, num_partitions={devices}\n\n"
    return costs.of(head + SUM + before + "ENTRY " + computation("main", *lines))
