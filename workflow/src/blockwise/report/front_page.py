"""What the README says of the claims: that their verdicts are withdrawn, and why.

The sentence stands between two marks; nobody edits it by hand, and `make reference` writes it
again.
"""

from blockwise.errors import ArtifactError
from blockwise.report.pages import WITHDRAWN

BEGIN = "<!-- claims of the reference run: written by `make reference` -->"
END = "<!-- end of the claims -->"


def with_claims(readme: str) -> str:
    """The README with what is said of the claims.

    Raises:
        ArtifactError: it has lost the marks between which the sentence stands.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ArtifactError(f"README.md has no place for the claims; put {BEGIN} and {END} there")
    return f"{before}{BEGIN}\n**{WITHDRAWN}**\n{END}{after}"
