"""The coordination patterns and their settings. One file a pattern holds the model of its `pattern_config`."""

from engine.contracts.patterns.builtin import PATTERN_CONFIGS, PATTERNS, SUPPORTED_PATTERNS, PatternDescription
from engine.contracts.patterns.supervisor import SupervisorConfig

__all__ = ["PATTERNS", "PATTERN_CONFIGS", "SUPPORTED_PATTERNS", "PatternDescription", "SupervisorConfig"]
