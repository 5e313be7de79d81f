"""A network in training in, a folder out and back: a run that was killed goes on where it was.

The folder holds `checkpoint.json` and `state-<hash>.safetensors`. The JSON names the state by its
hash and is replaced in one step, so what is read is one whole epoch. Nothing in it can run.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from model.config import TrainConfig
from model.durable import below, named_by_hash, remove_others, replace_file, write_by_hash
from model.errors import ConfigError
from model.member import Member
from model.networks import Network
from model.samples import Samples

if TYPE_CHECKING:
    from model.train import EpochReport

SCHEMA = 2
"""Version of the layout and of what training does with it; another one is not used."""

JSON_NAME = "checkpoint.json"

_STATE = "state"
_LARGEST_JSON = 2**20
_LARGEST_STATE = 16 * 2**30

SECONDS_BETWEEN = 5.0
"""Epochs that end sooner after the last writing are not written: a kill costs so much at most."""

_REPORT = ("loss", "validation_loss", "validation_macro_f1", "seconds")


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Where a run was."""

    done: list[Network]
    """The networks that are finished."""
    member: Member
    """The one that was in training."""
    report: dict[str, Any]
    """What the last report said of its epoch."""


class Checkpoint:
    """The folder of one run."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self._written = -float("inf")

    @classmethod
    def of(
        cls,
        folder: Path,
        samples: Samples,
        config: TrainConfig,
        validation: Samples | None,
    ) -> "Checkpoint":
        """Bind the folder to everything that decides the weights.

        Raises `ConfigError` if it is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"checkpoint {str(folder)!r} is a file; name a folder")
        content = {
            "schema": SCHEMA,
            "samples": samples.fingerprint,
            "validation": None if validation is None else validation.fingerprint,
            "config": config.to_dict(),
            "torch": torch.__version__,
        }
        return cls(folder, sha256(json.dumps(content, sort_keys=True).encode()).hexdigest())

    def write(
        self, done: list[Network], member: Member, report: "EpochReport", *, at_once: bool
    ) -> None:
        """Write where the run is, unless that was done a moment ago and `at_once` is false."""
        if not at_once and time.monotonic() - self._written < SECONDS_BETWEEN:
            return
        tensors = {f"member.{name}": value for name, value in member.tensors().items()}
        for index, network in enumerate(done):
            tensors |= {f"done.{index}.{n}": value for n, value in network.state_dict().items()}
        data = safetensors.torch.save({n: value.contiguous() for n, value in tensors.items()})
        self.folder.mkdir(parents=True, exist_ok=True)
        digest = write_by_hash(self.folder, _STATE, data)
        content = {
            "fingerprint": self.fingerprint,
            "done": len(done),
            "member": member.numbers(),
            "report": {name: getattr(report, name) for name in _REPORT},
            "state": digest,
        }
        content["checksum"] = _checksum(content)
        replace_file(self.folder / JSON_NAME, json.dumps(content, indent=1).encode())
        remove_others(self.folder, _STATE, digest)
        self._written = time.monotonic()

    def read(self, start: Callable[[], list[Member]]) -> tuple[Found | None, str]:
        """Return where the run was, or None, and a note for people about what was found.

        `start` makes the members as they are before training, to be filled.
        """
        path = self.folder / JSON_NAME
        if not path.exists():
            return None, ""
        try:
            content = json.loads(_read(path, _LARGEST_JSON))
            if content.pop("checksum") != _checksum(content):
                raise ValueError(f"{JSON_NAME} was changed after it was written")
            if content["fingerprint"] != self.fingerprint:
                return None, (
                    f"checkpoint {str(self.folder)!r} is of other samples or settings; "
                    "training begins anew"
                )
            found = self._restore(content, start())
        except (OSError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError,
                RecursionError, AttributeError) as error:  # fmt: skip
            reason = str(error).partition("\n")[0]
            return None, (
                f"checkpoint {str(self.folder)!r} is broken ({reason}); training begins anew"
            )
        return found, (
            f"going on after epoch {found.member.epoch} of network {len(found.done) + 1} "
            f"from checkpoint {str(self.folder)!r}"
        )

    def _restore(self, content: dict[str, Any], members: list[Member]) -> Found:
        digest, count = str(content["state"]), int(content["done"])
        # the name is rebuilt from the hash, which is checked: a path in the JSON leads nowhere
        data = _read(self.folder / named_by_hash(_STATE, digest), _LARGEST_STATE)
        if sha256(data).hexdigest() != digest:
            raise ValueError("the state was changed after it was written")
        tensors = safetensors.torch.load(data)
        if not 0 <= count < len(members):
            raise ValueError(f"{count} networks are done of {len(members)}")
        done = []
        for index, member in enumerate(members[:count]):
            network = member.network.eval().requires_grad_(False)
            network.load_state_dict(below(tensors, f"done.{index}."))
            done.append(network)
        member = members[count]
        member.restore(content["member"], below(tensors, "member."))
        if not 1 <= member.best_epoch <= member.epoch <= member.epochs:
            raise ValueError(f"epoch {member.epoch} of {member.epochs} cannot be")
        if not 0 <= member.averaged <= member.epoch:
            raise ValueError(f"{member.averaged} of {member.epoch} epochs are averaged")
        return Found(
            done=done, member=member, report={name: content["report"][name] for name in _REPORT}
        )


def _checksum(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(path: Path, largest: int) -> bytes:
    if (size := path.stat().st_size) > largest:
        raise ValueError(f"{path.name} has {size} bytes, far too many")
    return path.read_bytes()
