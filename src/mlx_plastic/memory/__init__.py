"""What was said, and what may be done with it. One door: Memory."""

from mlx_plastic.memory.jsonl import ExportReport, ImportProgress, ImportReport, export_lines
from mlx_plastic.memory.log import Memory
from mlx_plastic.memory.records import AuditRecord, Conversation, Exchange, Forgotten, Redaction, Stats, Turn
from mlx_plastic.memory.tags import TAGS

__all__ = [
    "TAGS",
    "AuditRecord",
    "Conversation",
    "Exchange",
    "ExportReport",
    "Forgotten",
    "ImportProgress",
    "ImportReport",
    "Memory",
    "Redaction",
    "Stats",
    "Turn",
    "export_lines",
]
