"""What the documentation computes from the package while it is built, so that it cannot drift."""

from typing import Any

from scoresample.samplers import AbstractSampler, available_samplers

MARKER = "<!-- samplers -->"


def samplers_table(to_root: str) -> str:
    """The table of samplers, in Markdown.

    Arguments:
        to_root: the way from the page to the folder of pages, such as "../".
    """
    rows = ["| name | class | runs on | exact in the limit? | reference |", "|---|---|---|---|---|"]
    for name, sampler in available_samplers().items():
        if issubclass(sampler, AbstractSampler):
            runs_on = "a score with a density" if sampler.needs_density else "any score"
        else:
            runs_on = "a path"
        exact = "yes" if sampler.asymptotically_exact else "no"
        link = f"[`{sampler.__name__}`]({to_root}api/samplers.md#scoresample.{sampler.__name__})"
        rows.append(f"| `{name}` | {link} | {runs_on} | {exact} | {sampler.reference} |")
    return "\n".join(rows)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put the table in the place of its marker."""
    if MARKER not in markdown:
        return markdown
    return markdown.replace(MARKER, samplers_table("../" * page.file.src_uri.count("/")))
