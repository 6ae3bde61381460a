import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from models.evaluation.decision_curve import net_benefit
from models.evaluation.figures import draw_confusion, draw_roc, read_history, write_figures
from models.evaluation.operating_point import OperatingPoint
from models.evaluation.scored import Scored
from models.evaluation.units import Unit

HISTORY = "epoch,train_loss,val_loss,val_auc\n1,0.7,0.8,nan\n2,0.5,0.6,0.9\n"


def scored(targets, scores, threshold=0.5):
    keys = [f"i{number}" for number in range(len(targets))]
    patients = [f"p{number}" for number in range(len(targets))]
    unit = Unit(keys, patients, np.array(targets) > 0, np.array(scores, float))
    return Scored.of(unit, OperatingPoint(threshold, "by hand"), 100, 1)


MIXED = scored([0, 0, 1, 1, 0, 1], [0.1, 0.6, 0.7, 0.9, 0.2, 0.4])
ONE_CLASS = scored([0, 0, 0], [0.1, 0.6, 0.7])


def axes():
    return Figure().add_subplot()


def test_the_roc_curve_passes_through_the_operating_point():
    drawn = axes()
    draw_roc(drawn, {"val": MIXED, "test": MIXED})
    lines = {line.get_label().split(":")[0]: line for line in drawn.get_lines()}
    curve = set(zip(*(data.round(6) for data in lines["Test AUC"].get_data()), strict=True))
    point = lines["operating point (0.50)"].get_data()
    assert (round(1 / 3, 6), round(2 / 3, 6)) in curve
    assert (round(float(point[0][0]), 6), round(float(point[1][0]), 6)) in curve


def test_the_confusion_matrix_shows_images_and_shares():
    drawn = axes()
    draw_confusion(drawn, MIXED)
    assert [text.get_text() for text in drawn.texts] == ["2\n67%", "1\n33%", "1\n33%", "2\n67%"]


@pytest.mark.parametrize("test", [MIXED, ONE_CLASS], ids=["both classes", "one class"])
def test_figures_are_white_and_large_enough_to_read(tmp_path, test):
    (tmp_path / "history.csv").write_text(HISTORY)
    write_figures(tmp_path, "ResNet18_CFT", {"val": MIXED, "test": test}, test.scores**2)
    assert len(list((tmp_path / "figures").iterdir())) == 12
    png = cv2.imread(str(tmp_path / "figures" / "roc.png"), cv2.IMREAD_UNCHANGED)
    assert (png[0, 0] == 255).all()
    assert min(png.shape[:2]) > 400
    svg = (tmp_path / "figures" / "roc.svg").read_text()
    assert "<svg" in svg
    assert "<dc:date>" not in svg


def test_a_read_out_has_no_epochs_to_draw(tmp_path):
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
