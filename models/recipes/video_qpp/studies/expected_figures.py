"""Expected figures of the hand-made predictors, and published figures of others.

`HANDMADE` was computed once from the authors' files by other code than this repository's, with the
same definitions; the words and synsets of PQPP are in its printed table, to the fourth decimal.
"""

from collections.abc import Mapping

TOLERANCE = 0.002

Correlations = tuple[float, float]
"""Pearson's r and Kendall's tau-b."""

VIDEO_TARGETS = ("gram.r10", "gram.rr", "vast.r10", "vast.rr")
"""The order of the columns of `HANDMADE` for MSR-VTT and VATEX."""


def _parse(text: str) -> tuple[Correlations, ...]:
    pairs = (cell.split("/") for cell in text.split())
    return tuple((float(r), float(tau)) for r, tau in pairs)


HANDMADE: Mapping[str, Mapping[str, tuple[Correlations, ...]]] = {
    "msrvtt": {
        "synsets": _parse(".182/.154 .172/.133 .154/.130 .140/.119"),
        "words": _parse(".270/.247 .255/.205 .222/.195 .224/.183"),
        "mean word length": _parse("-.022/-.037 -.074/-.050 .022/-.008 -.022/-.028"),
        "numerals per word": _parse("-.047/-.041 -.023/-.003 -.044/-.035 -.043/-.037"),
        "conjunctions per word": _parse(".087/.113 .076/.089 .055/.090 .050/.073"),
        "prepositions per word": _parse(".155/.122 .141/.107 .099/.080 .121/.096"),
        "characters": _parse(".253/.239 .225/.187 .220/.198 .212/.176"),
        "distinct words": _parse(".275/.254 .256/.207 .220/.198 .219/.186"),
        "proper nouns per word": (),
        "acronyms per word": (),
    },
    "vatex": {
        "synsets": _parse("-.026/.002 -.031/-.008 -.031/-.028 -.031/-.029"),
        "words": _parse("-.084/-.058 -.046/-.034 -.023/-.031 .006/-.020"),
        "mean word length": _parse(".037/.016 -.020/-.009 .022/.005 .001/-.001"),
        "proper nouns per word": _parse(".031/.011 .043/.005 .044/.033 .086/.043"),
        "acronyms per word": _parse(".022/.005 .047/.010 .029/.016 .066/.051"),
        "numerals per word": _parse("-.061/-.061 -.045/-.054 -.051/-.051 -.038/-.053"),
        "conjunctions per word": _parse("-.066/-.059 -.108/-.098 -.115/-.105 -.083/-.079"),
        "prepositions per word": _parse("-.040/-.035 .042/.014 .017/.012 .011/.013"),
        "characters": _parse("-.074/-.049 -.061/-.035 -.024/-.020 -.005/-.015"),
        "distinct words": _parse("-.088/-.061 -.063/-.045 -.042/-.035 -.007/-.019"),
    },
    "coco": {
        "synsets": _parse(
            "-.0710/-.0370 -.0527/-.0359 -.0633/-.0368 -.1418/-.0972 -.1299/-.0808 -.1343/-.0951 "
            "-.1520/-.0943"
        ),
        "words": _parse(
            "-.0696/-.0523 -.0548/-.0540 -.0588/-.0430 -.1994/-.1635 -.1616/-.1328 -.2056/-.1674 "
            "-.1367/-.1136"
        ),
    },
}
"""An empty row: the feature is constant there, because MSR-VTT's texts are in lower case."""

PUBLISHED: Mapping[str, tuple[Correlations, ...]] = {
    "fine-tuned BERT (published)": _parse(
        ".2629/.182 .218/.1574 .2109/.157 .5078/.3182 .441/.2726 .4993/.3176 .568/.416"
    ),
    "after retrieval: fine-tuned CLIP (published)": _parse(
        ".1979/.129 .1739/.1208 .1489/.1158 .4905/.3302 .4586/.2993 .4571/.3397 .6004/.4483"
    ),
    "after retrieval: correlation CNN (published)": _parse(
        ".3019/.2122 .2792/.2108 .2131/.16054 .3273/.1961 .3148/.18 .2980/.19 .4713/.347"
    ),
    "after retrieval: score variation (published)": _parse(
        ".016/.004 .020/.01161 .006/.0026 .0168/.0036 .016/.0031 .006/.0026"
    ),
}
"""PQPP's test by its authors (Poesina and others, arXiv 2406.04746), the targets in the order of
`pqpp.PQPP_TARGETS`; they print no intervals. Figures of VQPP's own paper are not available here."""
