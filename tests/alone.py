"""The verbs without the passes that most tests do not look at, which are most of their work.

What is inherited, how few layers matter and which mistake of the preprocessing was made have tests
of their own; there, and wherever all of an Audit counts, `bnaudit.measure` is called itself.
"""

from __future__ import annotations

from functools import partial

import bnaudit
from bnaudit.findings.policy import Policy

NO_TRIALS = Policy(ignore=("BN301",))
"""No other preprocessing is tried, which runs the model some ten times."""

measure_alone = partial(bnaudit.measure, attribute="none", policy=NO_TRIALS)
recalibrate_alone = partial(bnaudit.recalibrate, policy=NO_TRIALS)
