"""One trial of a search: a point of its space -> the best validation AUC that it trains to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna

from models.inference import place
from models.registry import LINEAR_PROBE, ModelRow
from models.run_facts import TrainingData
from models.training.best_trial import apply_point
from models.training.linear_probe import Plan, Probe
from models.training.loop import fit
from models.training.stage import hyper_parameters_of, make_network
from models.tuning.search_space import Space, Value
from pipeline.progress import Cell, Progress, Silent
from pipeline.stages.training import Train


class Trials(Protocol):
    """Scores points of a search space."""

    def score(self, params: Mapping[str, Any], folder: Path, trial: optuna.Trial) -> float:
        """Return the validation AUC of a point, the mean over the folds where there are several.

        Args:
            params: The point.
            folder: For what the trial writes; one that was stopped continues from there.
            trial: Told how far it has come; never pruned where it says so.

        Raises:
            TrialPruned: It falls behind.
            UserError: It cannot be trained.
        """
        ...


def make_trials(
    options: Train, row: ModelRow, data_of_folds: Sequence[TrainingData], progress: Progress
) -> Trials:
    """Return what scores the points of a model.

    Args:
        options: What all trials have in common.
        row: The model.
        data_of_folds: The images, of each fold.
        progress: Where it reports what is computed once for all trials.
    """
    kind = _LinearProbeTrials if row.strategy == LINEAR_PROBE else _TrainedTrials
    return kind(options, row, data_of_folds, progress)


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Value]:
    """Draw a point of a space."""
    point: dict[str, Value] = {}
    for one in space:
        if not one.applies(point):
            continue
        if one.kind == "choice":
            chosen = trial.suggest_categorical(one.name, one.choices)
            assert chosen is not None
            point[one.name] = chosen
        elif one.kind == "int":
            point[one.name] = trial.suggest_int(one.name, int(one.low), int(one.high), log=one.log)
        else:
            point[one.name] = trial.suggest_float(one.name, one.low, one.high, log=one.log)
    return point


class Watched(Silent):
    """Tells a study how a trial comes along, and ends one that falls behind."""

    def __init__(self, trial: optuna.Trial, before: Sequence[float], epochs: int) -> None:
        """Take the trial, the best AUC in the folds before this one, and the epochs of a fold."""
        self._trial, self._before, self._epochs = trial, list(before), epochs
        known = next(
            one for one in trial.study.get_trials(deepcopy=False) if one.number == trial.number
        )
        self._known = set(known.intermediate_values)  # of a trial that continues
        self._own = bool(known.user_attrs.get("own"))

    def row(self, cells: Mapping[str, Cell], best: bool = False) -> None:  # noqa: ARG002
        """Report the AUC after an epoch.

        Raises:
            TrialPruned: The pruner ends the trial; never that of the model's own values, which
                the others are held against.
        """
        epoch = cells["epoch"]
        assert isinstance(epoch, int)
        step = len(self._before) * self._epochs + epoch
        areas = [*self._before, float(cells["val_auc"] or 0.0)]
        if step not in self._known:
            self._trial.report(sum(areas) / len(areas), step)
        if not self._own and self._trial.should_prune():
            raise optuna.TrialPruned


class _TrainedTrials:
    """Trials that train a network, with the one loop of every training."""

    def __init__(
        self,
        options: Train,
        row: ModelRow,
        data_of_folds: Sequence[TrainingData],
        progress: Progress,  # noqa: ARG002
    ) -> None:
        self._options, self._row, self._data_of_folds = options, row, data_of_folds

    def score(self, params: Mapping[str, Any], folder: Path, trial: optuna.Trial) -> float:
        options, row = apply_point(params, self._options, self._row)
        hparams, areas = hyper_parameters_of(options, row), list[float]()
        for number, data in enumerate(self._data_of_folds):
            network, _, _ = make_network(options, row)
            place(network, data.compute)
            work = folder / str(number)
            work.mkdir(parents=True, exist_ok=True)
            watched = Watched(trial, areas, hparams.epochs)
            fitted = fit(network, row.trained_from, data, hparams, work, watched)
            areas.append(float(fitted.best["val_auc"]))
        return sum(areas) / len(areas)


class _LinearProbeTrials:
    """Trials that fit a linear probe on frozen features, computed once for all of them."""

    def __init__(
        self,
        options: Train,
        row: ModelRow,
        data_of_folds: Sequence[TrainingData],
        progress: Progress,
    ) -> None:
        network, _, _ = make_network(options, row)
        place(network, data_of_folds[0].compute)
        self._probes = [Probe(network, one, options.seed, progress) for one in data_of_folds]

    def score(self, params: Mapping[str, Any], folder: Path, trial: optuna.Trial) -> float:  # noqa: ARG002
        plan = Plan.of(params)
        areas = [float(row["val_auc"]) for one in self._probes for row, _ in one.rows(plan)]
        return sum(areas) / len(areas)
