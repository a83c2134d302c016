"""The promise as a state machine: see shipping.py."""

import pytest
from hypothesis import settings
from shipping import Shipping

Shipping.TestCase.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=30, deadline=None)
TestShipping = pytest.mark.timeout(1800)(Shipping.TestCase)
