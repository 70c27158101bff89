"""Checks of scripts/parity.py: each puts one question to the program and to transformers or PEFT, and reports rows."""
import os

# Before anything imports the hub's client.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
