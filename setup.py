"""Build script: setup.cfg holds the metadata, this file the packages, because data/ becomes ``refquant.data``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["refquant", "refquant.*"]), "refquant.data"],
    package_dir={"refquant.data": "data"},
)
