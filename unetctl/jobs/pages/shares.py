"""Who may hold how much of the memory while pages are worked on."""

from dataclasses import dataclass

from unetctl.runtime.memory import BASE_BYTES

#: Least that is shared out, however small the budget: the planner then says what is missing.
_LEAST_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Shares:
    """Of a budget, bytes.

    Attributes:
        budget: of the whole process.
        ahead: pages decoded ahead.
        group: pages that are computed together, with their answers.
        page: one page that is held whole; larger ones are read piece by piece and their answers gathered on disk.
        whole: one piece of a page that must be decoded at once; more is refused. Decoding takes up to three times that.
    """

    budget: int
    ahead: int
    group: int
    page: int
    whole: int

    @classmethod
    def of(cls, budget_bytes: int) -> "Shares":
        """As measured: what is left beside the interpreter and its libraries, parted."""
        spare = max(_LEAST_BYTES, budget_bytes - BASE_BYTES)
        return cls(budget_bytes, spare // 8, spare // 8, spare // 16, spare // 4)

    @property
    def planner(self) -> int:
        """For the network and the blocks of pages held in memory."""
        # Two threads decode ahead; what they do takes a copy of a page.
        return max(0, self.budget - self.ahead - self.group - 2 * self.page)

    def of_large(self, chunk_bytes: int) -> int:
        """For the network and the blocks of a page that is read piece by piece.

        Args:
            chunk_bytes: of the largest piece that must be decoded whole.
        """
        return max(0, self.budget - self.ahead - 2 * chunk_bytes)
