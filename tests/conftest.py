"""How all properties are tried: no example is timed, and 50 are drawn unless a test says more."""

from hypothesis import settings

settings.register_profile("hplb", deadline=None, max_examples=50)
settings.load_profile("hplb")
