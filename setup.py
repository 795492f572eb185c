"""Build of the package; metadata is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ldmlr", "ldmlr.*"]), "ldmlr_cli"],
    package_dir={"ldmlr_cli": "cli"},
)
