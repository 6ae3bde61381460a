from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score

from models.evaluation.bands import net_benefit
from models.evaluation.figures import (
    draw_confusion,
    draw_errors,
    draw_history,
    draw_precision_recall,
    draw_probabilities,
    draw_roc,
    read_history,
    write_figures,
)
from models.evaluation.operating_point import OperatingPoint
from models.evaluation.scored import ScoredSplit
from models.evaluation.units import Unit
from pipeline.labels import Labels

HISTORY = "epoch,train_loss,val_loss,val_auc\n1,0.7,0.8,nan\n2,0.5,0.6,0.9\n"


def scored(targets, scores, threshold=0.5):
    keys = [f"i{number}" for number in range(len(targets))]
    patients = [f"p{number}" for number in range(len(targets))]
    found = np.array(targets) > 0
    unit = Unit(keys, patients, found, np.array(scores, float), ~found)
    return ScoredSplit.of(unit, OperatingPoint(threshold, "by hand"), 100, 1)


MIXED = scored([0, 0, 1, 1, 0, 1], [0.1, 0.6, 0.7, 0.9, 0.2, 0.4])
ONE_CLASS = scored([0, 0, 0], [0.1, 0.6, 0.7])


def axes():
    return Figure().add_subplot()


def test_the_roc_curve_passes_through_the_operating_point():
    drawn = axes()
    draw_roc(drawn, {"val": MIXED, "test": MIXED}, 1)
    lines = {line.get_label().split(":")[0]: line for line in drawn.get_lines()}
    curve = set(zip(*(data.round(6) for data in lines["Test AUC"].get_data()), strict=True))
    point = lines["operating point (0.500)"].get_data()
    assert (round(1 / 3, 6), round(2 / 3, 6)) in curve
    assert (round(float(point[0][0]), 6), round(float(point[1][0]), 6)) in curve


def test_the_legend_writes_intervals_as_the_report_does():
    drawn = axes()
    many = scored([0, 1] * 20, [0.3, 0.6, 0.5, 0.4] * 10)
    draw_roc(drawn, {"test": many}, 1)
    label = next(line.get_label() for line in drawn.get_lines() if "Test" in line.get_label())
    area = many.estimates["auc"]
    assert label == f"Test AUC: {area.value:.3f} ({area.low:.3f} to {area.high:.3f})"


def test_curves_have_the_areas_that_scikit_learn_gives():
    draw = np.random.default_rng(5)
    targets = draw.random(300) < 0.4
    test = scored(targets, np.clip(draw.normal(0.4 + 0.2 * targets, 0.2), 0, 1).round(1))  # ties
    roc, curve = axes(), axes()
    draw_roc(roc, {"test": test}, 1)
    x, y = next(one for one in roc.get_lines() if "Test" in one.get_label()).get_data()
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(targets, test.scores), abs=1e-12)
    draw_precision_recall(curve, {"test": test}, 1)
    recall, precision = curve.get_lines()[0].get_data()
    area = (np.diff(recall, prepend=0) * precision).sum()
    assert area == pytest.approx(average_precision_score(targets, test.scores), abs=1e-12)


def test_the_confusion_matrix_shows_images_and_shares():
    drawn = axes()
    draw_confusion(drawn, MIXED, Labels("not_malignant", "malignant"))
    assert [text.get_text() for text in drawn.texts] == ["2\n67%", "1\n33%", "1\n33%", "2\n67%"]
    for axis in (drawn.xaxis, drawn.yaxis):
        assert [one.get_text() for one in axis.get_ticklabels()] == ["not malignant", "malignant"]


def test_the_histogram_counts_malignant_images_up_and_benign_ones_down():
    drawn = axes()
    test = scored([0, 0, 1, 1, 0, 1], [0.12, 0.62, 0.72, 0.92, 0.22, 0.42])
    draw_probabilities(drawn, test, Labels("normal", "abnormal"))
    assert [bars.get_label() for bars in drawn.containers] == ["abnormal", "normal"]
    assert drawn.get_xlabel() == "Probability of abnormality"
    malignant, benign = ([bar.get_height() for bar in bars] for bars in drawn.containers)
    assert malignant == [int(place in (8, 14, 18)) for place in range(20)]
    assert benign == [-int(place in (2, 4, 12)) for place in range(20)]


def test_the_epoch_whose_weights_were_kept_is_marked():
    drawn = axes()
    history = {"epoch": [1.0, 2.0, 3.0], "train_loss": [0.7, 0.5, 0.4],
               "val_loss": [0.8, 0.6, 0.7], "val_auc": [float("nan"), 0.9, 0.9]}  # fmt: skip
    draw_history(drawn, history)
    right = drawn.figure.axes[1]
    marked = [line for line in right.get_lines() if line.get_label() == "epoch 2: weights kept"]
    assert [line.get_data() for line in marked] == [([2.0], [0.9])]
    # Of a detector the smallest error decides, not the AUC.
    drawn = axes()
    draw_history(drawn, history | {"val_auc": [0.7, 0.8, 0.9]}, by_error=True)
    names = [line.get_label() for line in drawn.figure.axes[1].get_lines()]
    assert "epoch 2: weights kept" in names


def test_figures_of_a_detector_say_how_far_its_threshold_lies_not_a_probability():
    unit = scored([0, 0, 1, 1], [0.2, 0.4, 0.6, 0.99]).unit
    point = OperatingPoint(1 / (1 + np.exp(-2.0)), "mean + 2 standard deviations")
    test = ScoredSplit.of(unit, point, 100, 1, probabilities=False)
    matrix, curve, errors = axes(), axes(), axes()
    draw_confusion(matrix, test, Labels("normal", "abnormal"))
    assert matrix.get_xlabel() == "Called at +2.0 SD"
    assert [one.get_text() for one in matrix.xaxis.get_ticklabels()] == [
        "not anomalous", "anomalous"]  # fmt: skip
    draw_roc(curve, {"test": test}, 1)
    assert "operating point (+2.0 SD)" in [one.get_label() for one in curve.get_lines()]
    draw_errors(errors, test, Labels("normal", "abnormal"))
    (threshold,) = (one for one in errors.get_lines() if "threshold" in str(one.get_label()))
    assert threshold.get_label() == "threshold (+2.0 SD)"
    assert threshold.get_xdata()[0] == pytest.approx(2)


@pytest.mark.slow
@pytest.mark.parametrize("test", [MIXED, ONE_CLASS], ids=["both classes", "one class"])
def test_figures_are_white_and_large_enough_to_read(tmp_path, test):
    (tmp_path / "history.csv").write_text(HISTORY)
    write_figures(
        tmp_path, "ResNet18_CFT", {"val": MIXED, "test": test}, test.scores**2, 1, Labels()
    )
    assert len(list((tmp_path / "figures").iterdir())) == 14
    png = cv2.imread(str(tmp_path / "figures" / "roc.png"), cv2.IMREAD_UNCHANGED)
    assert (png[0, 0] == 255).all()
    assert min(png.shape[:2]) > 400
    svg = (tmp_path / "figures" / "roc.svg").read_text()
    assert "<svg" in svg
    assert "<dc:date>" not in svg
    description = ElementTree.fromstring(svg).findtext(".//{*}description")
    assert description.startswith("ResNet18_CFT: ROC. guessing; Test AUC: ")
    assert "operating point (0.500)" in description


def test_a_linear_probe_has_no_epochs_to_draw(tmp_path):
    (tmp_path / "history.csv").write_text("C,train_loss\n0.1,0.5\n1.0,0.4\n")
    assert read_history(tmp_path / "history.csv") == {}


def test_net_benefit_is_what_vickers_and_elkin_define():
    targets = np.array([True, False, False, True])
    scores = np.array([0.9, 0.6, 0.1, 0.3])
    (found,) = net_benefit(targets, scores, np.array([0.5, 0.2, 0.0]), np.ones((1, 4)))
    # At 0.5: one of four rightly, one wrongly called; at odds of one they outweigh each other.
    # At 0.2 all but one are called, and a false alarm costs a quarter of a missed cancer.
    # At 0 all are called, which is worth the share of malignant images.
    assert found == pytest.approx([0.0, 0.5 - 0.25 * 0.25, 0.5])
