"""Build script: everything but the mapping of ``data/`` to ``refquant.data`` stands in setup.cfg."""

from setuptools import setup

setup(package_dir={"refquant.data": "data"})
