"""Where the files of an outside program may lie that takes a path for several words."""

import os
import re
from tempfile import gettempdir

from profiles.errors import HplbError

AWKWARD = re.compile(r"[\s%]")
"""What a path must not have: PuLP cuts CBC's command line at blanks, CBC takes a % apart."""


class NoFolderError(HplbError):
    """No folder's path is plain."""


def plain_folder() -> str:
    """The system's folder for temporary files, or another that has a plain name."""
    wanted = gettempdir()
    for folder in (wanted, "/tmp", "/var/tmp", os.getcwd()):
        if not AWKWARD.search(folder) and os.access(folder, os.W_OK):
            return folder
    raise NoFolderError(
        f"CBC needs a folder whose path has no blank and no %, which {wanted!r} has: set TMPDIR"
    )
