"""What a process does once, so that none of its forks does it again."""

__all__ = ["ready_to_fork"]

import gc

from transformers.conversion_mapping import get_checkpoint_conversion_mapping


def ready_to_fork() -> None:
    """Build the table that saving a model reads, whose patterns take longer to compile than a tiny run; freeze memory."""
    get_checkpoint_conversion_mapping("llama")
    gc.freeze()  # a collection in a fork would copy every page it visits
