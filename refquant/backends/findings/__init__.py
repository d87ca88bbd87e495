"""Findings: what engines do that their users would not expect, each with the smallest call that shows it.

>>> from refquant.backends.findings import find, reproduce
>>> print(*reproduce(find("zero-point-before-rounding")).lines(), sep="\\n")
3 of 3 outputs are other than expected
[0]: engine not asked, oracle 2, expected 1
[1]: engine not asked, oracle 2, expected 3
[2]: engine not asked, oracle 4, expected 3
"""

from refquant.backends.findings.conversions import CONVERSIONS
from refquant.backends.findings.elementwise import ELEMENTWISE
from refquant.backends.findings.event import Event, reproduce_event
from refquant.backends.findings.events import EVENTS
from refquant.backends.findings.finding import Finding, Reproduction, reproduce_call
from refquant.backends.findings.openvino import OPENVINO
from refquant.backends.findings.products import PRODUCTS
from refquant.errors import ArgumentError, choose

__all__ = ["FINDINGS", "Event", "Finding", "Reproduction", "find", "reproduce"]

FINDINGS = (*CONVERSIONS, *PRODUCTS, *ELEMENTWISE, *OPENVINO, *EVENTS)

if len({finding.name for finding in FINDINGS}) != len(FINDINGS):
    raise ArgumentError("findings: two findings share a name; rename one")


def find(name):
    """Return the finding of a name, or raise an `ArgumentError` with the nearest ones."""
    table = {finding.name: finding for finding in FINDINGS}
    return table[choose("findings", "name", name, table)]


def reproduce(finding, runner=None):
    """Run a finding's call on an engine and by the oracle; of an event ask the engine in another process.

    Parameters
    ----------
    finding : Finding or Event
    runner : Runner, optional
        None leaves the engine out.

    Returns
    -------
    Reproduction

    Raises
    ------
    BackendMissing
        The engine does not compute the call on this processor.
    """
    return reproduce_event(finding, runner is not None) if isinstance(finding, Event) else reproduce_call(finding, runner)
