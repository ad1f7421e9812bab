"""The configuration bound: how well devices can be filled at best, each on its own."""

from solver.configurations.bound import configuration_bound

__all__ = ["configuration_bound"]
