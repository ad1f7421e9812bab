"""What the demo runs unless told: a real model, fetched where it can be, else the shipped one."""

import subprocess
import sys

from rich.console import Console

from profiles.catalogue import REFERENCE_MODEL, REFERENCE_PROFILE
from profiles.fetched import SMOLLM2


def usual_model(say: Console) -> tuple[str, str]:
    """The names of a model and of its profile.

    The fetching is a command of its own, since it takes torch: it shows how far it is, asks nobody
    where the model is here, and says itself why it cannot be had.
    """
    command = [sys.executable, "-m", "api.main", "models", "get", SMOLLM2.name, "--print-path"]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0:
        return SMOLLM2.name, SMOLLM2.name
    say.print(f"{SMOLLM2.name} cannot be had here: the shipped reference model runs in its place")
    return REFERENCE_MODEL, REFERENCE_PROFILE
