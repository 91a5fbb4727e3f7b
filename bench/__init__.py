"""Measurements, each one command: `make bench` runs all, `make bench BENCH="containers idle"` some.

Figures that depend on the machine are taken side by side with their floor in one run, in turns, and told as ratios
of medians.
"""
