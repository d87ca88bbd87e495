"""Verification: problems, adversarial cases, comparison by bits, campaigns, golden vectors. Knows no engine.

>>> from refquant.verify import Case, build, oracle, compare
>>> problem = build(Case.parse("linear/fbgemm/m5k64n17/neartie/seed=0/per_channel"))
>>> print(compare(oracle(problem, "fbgemm"), oracle(problem, "onednn")))
"""
