"""Finished outputs that somebody has changed since: kept beside, never written over.

put_aside(path) -> where it is now
"""

from pathlib import Path


def put_aside(path: Path) -> Path:
    """Renames a file or folder to the first NAME.changed-N that is free, so that nothing of its maker's is lost."""
    number = 1
    while (aside := path.with_name(f"{path.name}.changed-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def told(path: Path, kept: Path) -> str:
    """What to say of it."""
    return f"{path} is not as it was written: what is there is kept as {kept.name}, and it is made again"
