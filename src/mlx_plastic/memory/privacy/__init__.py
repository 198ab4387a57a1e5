"""What is personal or secret in a text, and the text without it. One door: scan and redact.

    scan(text)                     -> where is what, and how sure that is
    redact(text, policy)           -> the text with placeholders, and counts
    redact_all(texts, policy)      -> the same for a whole conversation

All detectors are pure functions of the text: no network, no model, no more than linear time.
"""

from mlx_plastic.memory.privacy.placeholders import Placeholders
from mlx_plastic.memory.privacy.policies import (
    DESTINATIONS,
    Action,
    Destination,
    Policy,
    PrivacyConfig,
    Rule,
    policy_for,
    read_policy,
)
from mlx_plastic.memory.privacy.redact import Redacted, redact, redact_all
from mlx_plastic.memory.privacy.scan import scan, scan_all
from mlx_plastic.memory.privacy.spans import KINDS, Kind, Span

__all__ = [
    "DESTINATIONS",
    "KINDS",
    "Action",
    "Destination",
    "Kind",
    "Placeholders",
    "Policy",
    "PrivacyConfig",
    "Redacted",
    "Rule",
    "Span",
    "policy_for",
    "read_policy",
    "redact",
    "redact_all",
    "scan",
    "scan_all",
]
