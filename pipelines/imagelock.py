"""The question of a recipe to Earth Engine in, its images out: from the lock file, or searched."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cube.durable import replace_text
from cube.earthengine import Access
from cube.earthengine.composite import Mask
from cube.earthengine.scenes import ImageQuery, empty_qa60, find_images
from cube.ledger import fingerprint
from cube.periods import Period, periods_between
from cube.spec import CubeSpec
from cube.stac import SceneList, read_scenes, search_area, write_scenes
from pipelines.recipe import EarthEngineSection

_ASKED = {"collection", "max_cloud_cover", "leave_out"}
"""Keys of the source that decide which images there are."""


@dataclass(frozen=True, kw_only=True)
class ImageLock:
    """The images of a recipe, and the file that keeps them."""

    section: EarthEngineSection
    """The recipe's source."""
    months: tuple[Period, Period]
    """First and last month."""
    spec: CubeSpec
    """The recipe's cube."""
    access: Access
    """Whom to ask."""
    mask: Mask
    """What says which pixels are clear."""
    file: Path
    """Where the images are kept."""

    def scenes(self, *, update: bool) -> SceneList:
        """Return the images of the lock file, which is written anew where that must be.

        With QA60 as the mask, the months in which it is empty are looked for, and kept beside it.
        Raises as `find_images`.
        """
        kept = read_scenes(self.file) if self.file.exists() and not update else None
        if kept is not None and kept.question == self._question and self._has_notes():
            return kept
        from cube.earthengine.session import session  # imports the client, which is optional

        area, asked = search_area(self.spec.geobox), session(self.access)
        query = ImageQuery(
            collection=self.section.collection,
            periods=periods_between(*self.months),
            geometry=area,
            max_cloud_cover=self.section.max_cloud_cover,
            leave_out=self.section.leave_out,
            mask=self.mask,
        )
        found = find_images(asked, query)
        if self.mask == "qa60":
            months = empty_qa60(asked, found.scenes, area)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            notes = {"question": self._question, "empty_qa60": list(months)}
            replace_text(self._notes, json.dumps(notes) + "\n")
        write_scenes(self.file, found, question=self._question)
        return replace(found, question=self._question)

    def warnings(self) -> list[str]:
        """Return what is to be told of the images that `scenes` gave, one line each."""
        months = self._read_notes().get("empty_qa60", []) if self.mask == "qa60" else []
        if not months:
            return []
        return [
            f"QA60 is empty in {', '.join(months)}, though images report cloud: nothing is masked "
            "there; mask = 'cloud-score-plus' or 'scl' would"
        ]

    @property
    def _notes(self) -> Path:
        return self.file.with_name("images.json")

    def _has_notes(self) -> bool:
        return self.mask != "qa60" or self._read_notes().get("question") == self._question

    def _read_notes(self) -> dict[str, Any]:
        """Return what was noted of the images; nothing if the file is not there or damaged."""
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
            is_whole = all(isinstance(month, str) for month in notes["empty_qa60"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # they are made anew
        return dict(notes) if is_whole else {}

    @property
    def _question(self) -> str:
        described = self.spec.to_json()
        return fingerprint(
            {
                "source": self.section.model_dump(include=_ASKED),
                "months": [str(month) for month in self.months],
                "mask": self.mask,
                **{key: described[key] for key in ("crs", "transform", "shape")},
            }
        )
