"""For all tests: Hypothesis measures no time, because how long one example takes says more about the machine."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
