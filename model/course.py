"""Samples and settings in, what a training shares from its first epoch to its last out."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from model.assess import Scores
from model.augment import Augmentation
from model.config import TrainConfig
from model.errors import ConfigError
from model.fitted import Fitted
from model.loss import Loss, class_counts, validation_weights
from model.member import Member
from model.networks import Network, class_probability
from model.networks.encoding import PiecewiseEncoding
from model.preparation import Preparation
from model.samples import Samples
from model.threads import torch_threads
from model.trainable import refuse_other_validation


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochReport:
    """What one epoch did."""

    epoch: int
    """1 for the first."""
    epochs: int
    """How many there are at most."""
    member: int = 1
    """Which network of the ensemble is trained, 1 for the first."""
    members: int = 1
    """How many there will be."""
    loss: float
    """Mean loss over the training samples, with dropout."""
    validation_loss: float | None
    """Weighted cross-entropy over the validation samples; None without them."""
    validation_macro_f1: float | None
    """Macro-F1 over the validation samples; None without them."""
    seconds: float
    """Wall time of the epoch."""
    best: Fitted
    """The networks of the lowest validation loss so far, or without validation the latest: of
    the members that are done and of the one in training."""
    note: str = ""
    """What became of the checkpoint, on the first report of a run that found one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """What stays the same from the first epoch to the last."""

    config: TrainConfig
    preparation: Preparation
    augmentation: Augmentation
    loss: Loss
    epochs: int
    """At most; more than configured where samples are few."""
    known: Float32[Tensor, "value feature"] | None
    """Clear values of all samples; None where nothing learns from them."""
    inputs: Float32[Tensor, "sample time channel"]
    target: Tensor
    """Index of the class (sample,), or share of each (sample, class)."""
    chance: Float[Tensor, "sample"] | None
    """Chance of each sample to be drawn; None where every epoch sees every sample."""
    held_out: tuple[Float32[np.ndarray, "held time channel"], Samples] | None
    validation_weights: Float32[np.ndarray, "class"]
    classes: tuple[str, ...]

    @classmethod
    def prepare(cls, samples: Samples, config: TrainConfig, validation: Samples | None) -> "Course":
        """Prepare what every epoch needs; raises as `model.train.fit`."""
        preparation = Preparation.learn(samples, config)
        held_out = None
        if validation is not None and len(validation):
            refuse_other_validation(samples, validation, config)
            held_out = (preparation.apply(validation.reflectance, validation.bands), validation)
        target = torch.from_numpy(samples.label if samples.share is None else samples.share)
        if config.mixup and target.ndim == 1:
            target = nn.functional.one_hot(target, len(samples.classes)).float()
        chance = None
        if config.balanced_sampling:
            rarity = 1 / np.maximum(class_counts(samples), 1e-9)
            chance = torch.from_numpy(
                rarity[samples.label] if samples.share is None else samples.share @ rarity
            )
        inputs = torch.from_numpy(preparation.apply(samples.reflectance, samples.bands))
        known = None
        if config.input_pieces:
            is_clear = config.features.is_clear(samples.reflectance, samples.bands)
            known = inputs[torch.from_numpy(is_clear)][:, : len(config.features)]
        batches = -(-len(samples) // config.batch_size)
        return cls(
            config=config,
            epochs=max(config.epochs, -(-config.least_steps // batches)),
            known=known,
            preparation=preparation,
            augmentation=Augmentation.from_config(config, preparation, samples),
            loss=Loss.from_config(config, samples),
            inputs=inputs,
            target=target,
            chance=chance,
            held_out=held_out,
            validation_weights=validation_weights(config, samples),
            classes=samples.classes,
        )

    def start(self, index: int) -> Member:
        """Return a network that has learned nothing yet, with its optimiser; of an ensemble one."""
        _, steps, channels = self.inputs.shape
        member = Member(
            self.config,
            epochs=self.epochs,
            member=index,
            channels=channels,
            classes=len(self.classes),
            steps=steps,
        )
        encoding = member.network.encoding
        if isinstance(encoding, PiecewiseEncoding) and self.known is not None:
            encoding.learn(self.known)
        return member

    def run_epoch(self, done: list[Network], member: Member, note: str) -> EpochReport:
        """Train one epoch of a member, the others being `done`."""
        started = time.perf_counter()
        # Between epochs the caller may use torch: its random state and threads are its own.
        with torch_threads(self.config.threads), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(member.random_state)
            loss = self._train(member)
            member.random_state = torch.get_rng_state()
            member.epoch += 1
            candidate = member.candidate(self.config)
            self._refuse_divergence(member.epoch, loss, candidate)
            validation_loss, macro_f1 = None, None
            if self.held_out is not None:
                validation_loss, macro_f1 = self._validate(candidate, *self.held_out)
            member.keep(candidate, validation_loss)
        return self.report(
            done,
            member,
            loss=loss,
            validation_loss=validation_loss,
            validation_macro_f1=macro_f1,
            seconds=time.perf_counter() - started,
            note=note,
        )

    def report(
        self,
        done: list[Network],
        member: Member,
        *,
        loss: float,
        validation_loss: float | None,
        validation_macro_f1: float | None,
        seconds: float,
        note: str,
    ) -> EpochReport:
        """Return what is told after an epoch."""
        assert member.best is not None  # reports are of epochs that were done
        return EpochReport(
            epoch=member.epoch,
            epochs=self.epochs,
            member=len(done) + 1,
            members=self.config.members,
            loss=loss,
            validation_loss=validation_loss,
            validation_macro_f1=validation_macro_f1,
            seconds=seconds,
            best=Fitted(
                networks=(*done, member.best),
                preparation=self.preparation,
                config=self.config,
                epoch=member.best_epoch,
            ),
            note=note,
        )

    def _train(self, member: Member) -> float:
        """Train one epoch; return the mean loss."""
        network, config = member.network, self.config
        network.train()
        losses = []
        if self.chance is None:
            order = torch.randperm(len(self.inputs))
        else:
            order = torch.multinomial(self.chance, len(self.inputs), replacement=True)
        batches = _batches(order, config.batch_size)
        for number, chosen in enumerate(batches):
            progress = (member.epoch + number / len(batches)) / self.epochs
            for group in member.optimiser.param_groups:
                group["lr"] = _learning_rate(config, progress)
            steps, target = self.inputs.index_select(0, chosen), self.target.index_select(0, chosen)
            steps = self.augmentation.apply(steps)
            encoded = network.encoding(steps)
            if config.mixup:
                encoded, target = self.augmentation.mixed(encoded, target)
            member.optimiser.zero_grad()
            loss = self.loss.of(network.scores(encoded), target)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.gradient_limit is not None:
                nn.utils.clip_grad_norm_(network.parameters(), config.gradient_limit)
            member.optimiser.step()
            losses.append(loss.detach())
        sizes = torch.tensor([len(chosen) for chosen in batches], dtype=torch.float64)
        return float(torch.stack(losses).double() @ sizes) / len(self.inputs)

    def _refuse_divergence(self, epoch: int, loss: float, candidate: Network) -> None:
        weights = candidate.state_dict().values()
        if math.isfinite(loss) and all(bool(weight.isfinite().all()) for weight in weights):
            return
        raise ConfigError(
            f"training diverged: in epoch {epoch} the loss ({loss:g}) or weights ceased to be "
            f"finite\nset learning_rate below {self.config.learning_rate!r} or gradient_limit to 1, "
            "and look for wild values in the samples"
        )

    def _validate(
        self,
        network: Network,
        prepared: Float32[np.ndarray, "held time channel"],
        validation: Samples,
    ) -> tuple[float, float]:
        """Return the weighted cross-entropy and the macro-F1 over the validation samples."""
        probability = class_probability(network, prepared).astype(np.float64)
        share = validation.share
        if share is None:
            share = np.eye(len(self.classes), dtype=np.float32)[validation.label]
        weight = share * self.validation_weights.astype(np.float64)  # (sample, class)
        loss = float(-(np.log(np.maximum(probability, 1e-12)) * weight).sum() / weight.sum())
        predicted = probability.argmax(axis=1).astype(np.int64)
        return loss, Scores.from_labels(validation.label, predicted, self.classes).macro_f1


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """Cut the order into batches; a single sample, which has no spread, joins those before it."""
    batches = list(torch.split(order, size))
    if size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _learning_rate(config: TrainConfig, progress: float) -> float:
    """Step size when a share `progress` of all steps is done."""
    if config.schedule == "constant":
        return config.learning_rate
    rise = 0.2
    if progress < rise:
        return config.learning_rate * (0.05 + 0.95 * progress / rise)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
