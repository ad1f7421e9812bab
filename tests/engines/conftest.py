"""What every engine's tests may ask for."""

from tests.real_model import smollm2 as smollm2
