"""Sequences in; steps that are called clear and are bright as clouds, out."""

import numpy as np

from model.audit.audited import Audited
from model.audit.finding import Finding, rows_of

BRIGHT_BLUE = 0.25
"""Reflectance in blue that no plant and few soils have."""

_SNOW = 0.4
"""Normalised difference of green and short-wave infrared above which it is snow (Hall 1995)."""

_OFTEN = 0.01


def find_clouds(audited: Audited) -> list[Finding]:
    """Return a finding where more than a hundredth of all steps is bright in blue and no snow."""
    if not audited.has("B02"):
        return []
    is_bright = audited.band("B02") > BRIGHT_BLUE
    if audited.has("B03", "B11"):
        green, infrared = audited.band("B03"), audited.band("B11")
        with np.errstate(divide="ignore", invalid="ignore"):
            is_bright &= ~((green - infrared) / (green + infrared) > _SNOW)
    share = is_bright.sum() / max(int(audited.is_seen.sum()), 1)
    if share <= _OFTEN:
        return []
    return [
        Finding(
            code="cloud-inside",
            severity="warning",
            what=f"{int(is_bright.sum()):,} steps ({share:.1%}) are brighter than {BRIGHT_BLUE:g} "
            "in blue and are no snow: clouds that no mask took out",
            count=int(is_bright.any(axis=1).sum()),
            rows=rows_of(np.asarray(is_bright.any(axis=1))),
            advice="Mask by the scene classification or a cloud score; QA60 was empty in 2022 and "
            "2023",
        )
    ]
