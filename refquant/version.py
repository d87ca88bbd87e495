"""The version of refquant, in one place."""

VERSION = "0.1.0"
