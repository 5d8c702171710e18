"""The claims by their names, in the order of the page."""

from reproduce import (
    claim_batch_group,
    claim_batch_size,
    claim_blocking,
    claim_depth,
    claim_domain,
    claim_ghost,
    claim_lagging,
    claim_leakage,
    claim_weighing,
    claim_xbn,
)

_MODULES = (
    claim_depth,
    claim_blocking,
    claim_xbn,
    claim_lagging,
    claim_batch_size,
    claim_domain,
    claim_leakage,
    claim_weighing,
    claim_ghost,
    claim_batch_group,
)

CLAIMS = {module.CLAIM.key: module.CLAIM for module in _MODULES}
