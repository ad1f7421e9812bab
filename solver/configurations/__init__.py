"""The configuration bound: how well devices can be filled at best, each on its own."""

from solver.configurations.bound import ConfigurationBound, configuration_bound
from solver.configurations.in_turn import Layer, fill_in_turn

__all__ = ["ConfigurationBound", "Layer", "configuration_bound", "fill_in_turn"]
