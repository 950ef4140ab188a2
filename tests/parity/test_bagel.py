"""BAGEL, bit for bit: every golden folder (`goldens.folders`) through every check of `checks/`."""

import pytest
from parity.checks import CHECKS


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_parity(golden, check):
    check(golden)
