"""The claims of three papers tried at the scale of the digits: `make reproduce`.

One file a claim (`claim_*.py`), each with its hypotheses written down before the reported seeds
were run; `significance.py` has the tests, `page.py` writes `REPRODUCTION.md`. Papers by the names
of the documentation: Huang 2022 (arXiv:2203.10778), Wu 2021 (arXiv:2105.07576), Summers 2020
(arXiv:1906.03548).
"""
