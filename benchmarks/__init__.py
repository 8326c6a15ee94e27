"""Measurements against what one would write without the control plane; see docs/benchmarks.md."""
