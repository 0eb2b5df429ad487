"""Which version of a package is installed, without importing it."""

from __future__ import annotations


def installed_version(package: str) -> str | None:
    """The version of `package`; None if it is not installed."""
    from importlib import metadata  # slow to import, so only where it is asked for

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
