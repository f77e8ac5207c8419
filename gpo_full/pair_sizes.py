"""How many tokens of a packed row are a pair's, by part: known to the host, which need not ask the device."""

__all__ = ["PairSizes"]

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PairSizes:
    """Tokens of the parts of `[prefix | chosen | rejected]`; the first `prompt` of the prefix are no response's."""

    prompt: int
    prefix: int
    chosen: int
    rejected: int

    @property
    def size(self) -> int:
        """Tokens in all."""
        return self.prefix + self.chosen + self.rejected

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the responses, chosen first, with what they share."""
        shared = self.prefix - self.prompt
        return shared + self.chosen, shared + self.rejected
