"""The oracle's speed beside the engines', in one process: equal bits first, then all sides in turn.

`refquant bench` runs the works of `refquant.backends.bench.run.WORKS`. Works call refquant by its public names, as its users do.
"""
