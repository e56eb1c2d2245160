"""`relight coverage --runtime`: what the sources say beside what was counted."""

from collections import Counter
from collections.abc import Sequence

from relight.engine.cli.output import out, print_table
from relight.engine.coverage.runtime import Agreement, Compared

COLUMNS = ("where", "counted", "guarded", "without", "what that means")
SAID = {
    Agreement.CONTRADICTED: "contradict the sources",
    Agreement.NOT_IN_SOURCES: "are not shown by the sources",
    Agreement.BETTER: "are better than the sources show",
    Agreement.NEVER_SEEN: "were never seen",
    Agreement.AGREED: "agree",
}


def show_compared(compared: Sequence[Compared]) -> None:
    """A table of all but the places that agree, and how many of each kind there are."""
    if differing := [one for one in compared if one.agreement is not Agreement.AGREED]:
        rows = ([one.place, one.agreement.value, one.guarded, one.raw, one.said] for one in differing)
        print_table("Calls that were counted, beside the sources", COLUMNS, rows)
    numbers = Counter(one.agreement for one in compared)
    told = ", ".join(f"{numbers[agreement]} {words}" for agreement, words in SAID.items() if numbers[agreement])
    out.print(f"counted at run time: {told or 'nothing'}", highlight=False, markup=False, soft_wrap=True)
