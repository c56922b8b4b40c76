"""Collected by `test_device` alone, in a process of their own: a device is made before anything is computed, and stays."""

import os

if os.environ.get("SIMULATED_DEVICE") != "1":
    collect_ignore_glob = ["test_*.py"]
