"""Who may act for whom: scopes, grants, chains, trust, the decision. Pure: keys and ``now`` in, verdicts out."""
