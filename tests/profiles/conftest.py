"""What the tests of profiles share."""

from tests.real_model import smollm2 as smollm2
