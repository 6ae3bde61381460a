"""The stage `export`: a run as ONNX, with a model card, and where timm knows it for the hub."""

import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.domain import ARRAYS_FILE, FACTS_FILE, Domain
from models.evaluation.calibration import Calibration
from models.export.agreement import Agreement, check_agreement
from models.export.card import Exported, model_card
from models.export.cohort import cohort_of
from models.export.facts import exported_facts, model_facts_of
from models.export.graph import write_onnx
from models.export.hub import FILES, timm_problem, write_timm
from models.inference import WEIGHTS_FILE, load_run, prepare_process
from models.onnx_scorer import MODEL
from pipeline.errors import UserError
from pipeline.paths import from_here
from pipeline.progress import Progress, Result, Table
from pipeline.records import atomic, claim_folder, close_folder, digest, file_digest, open_folder
from pipeline.resources.sizes import bytes_text
from pipeline.runs import METRICS, Run, find_run
from pipeline.stages.export import Export

STAGE = "export"  # also the folder's name in that of the run
CARD = "README.md"
CONTENT = {
    MODEL: "ONNX, float32: network, normalisation, facts",
    CARD: "model card",
    FILES[0]: "timm's description of the network",
    FILES[1]: "its weights, as timm loads them",
    FACTS_FILE: "the run's out-of-domain check",
    ARRAYS_FILE: "what it compares features with",
}
OWN = ("stage.json", "answers.json")  # of the folder, and not to be published


def export(options: Export, progress: Progress) -> Result:
    """Export an evaluated run: all files, or none where ONNX Runtime and PyTorch disagree.

    Returns:
        The folder, with the largest difference of a score that was seen.

    Raises:
        UserError: There is no such run, it was not evaluated or has no network of its own, or
            what ONNX Runtime computes is not what PyTorch computes.
    """
    started = time.perf_counter()
    run = find_run(options.runs, options.run)
    model_facts_of(run)
    measured = run.metrics()
    out = options.out or run.folder / STAGE
    if out.resolve() == run.folder.resolve():
        raise UserError(f"--out {out}: is the folder of the run", "choose another --out")
    claim_folder(out, STAGE, options)
    prepare_process(0)
    with TemporaryDirectory() as scratch:
        agreement, facts = _write(run, measured, Path(scratch), progress)
        open_folder(out, STAGE, options)
        _publish(Path(scratch), out)
    inputs = digest(*(file_digest(run.folder / name) for name in (WEIGHTS_FILE, METRICS)))
    facts["content"] = file_digest(out / MODEL)
    close_folder(out, STAGE, options, facts, inputs, time.perf_counter() - started)
    return _result(run, measured, out, agreement, facts)


def _write(
    run: Run, measured: Mapping[str, Any], folder: Path, progress: Progress
) -> tuple[Agreement, dict[str, Any]]:
    """Write all files into a folder, and return what was made, also in figures.

    Raises:
        UserError: The file does not give what the network gives.
    """
    model = load_run(run.folder)
    facts = exported_facts(run, model.facts, measured)
    with progress.waiting("Converting the network to ONNX ..."):
        opset = write_onnx(model, facts["tta"], facts, folder / MODEL)
    agreement = check_agreement(run, model, facts, folder / MODEL, progress)
    problem = timm_problem(model.facts)
    if not problem:
        write_timm(model, folder)
    if Domain.load(run.folder) is not None:
        for name in (FACTS_FILE, ARRAYS_FILE):
            shutil.copyfile(run.folder / name, folder / name)
    cohort = cohort_of(model.facts)
    card = Exported(run, model.facts, measured, run.record(), cohort, agreement, problem)
    (folder / CARD).write_text(model_card(card), encoding="utf-8", newline="\n")
    return agreement, {
        "images": agreement.images,
        "validation_images": agreement.real,
        "largest_difference": agreement.score,  # in probability, or as a share of an error
        "largest_feature_difference": agreement.features,
        "largest_difference_from_evaluation": agreement.evaluation,
        "precision": model.facts.get("precision", "fp32"),  # of the evaluation
        "opset": opset,
        "without_timm": problem,  # why timm cannot load it; empty where it can
        "collection": cohort.name,
    }


def _publish(scratch: Path, out: Path) -> None:
    """Put the files into the folder, each whole, and remove those of an earlier export."""
    for name in CONTENT:
        if not (scratch / name).is_file():
            (out / name).unlink(missing_ok=True)
            continue
        with atomic(out / name) as temporary:
            shutil.copyfile(scratch / name, temporary)


def _result(
    run: Run, measured: Mapping[str, Any], out: Path, agreement: Agreement, facts: Mapping[str, Any]
) -> Result:
    written = [name for name in CONTENT if (out / name).is_file()]
    rows = [(name, bytes_text((out / name).stat().st_size), CONTENT[name]) for name in written]
    upload = upload_command(out)
    notes = []
    if apart := agreement.from_evaluation(facts["precision"]):
        notes.append(apart)
    if not agreement.real:
        notes.append("the validation images are gone or made anew: compared on images of noise")
    if facts["without_timm"]:
        notes.append(f"{facts['without_timm']}: the network is there as ONNX alone")
    if Calibration.of(measured["calibration"]).method == "none":
        notes.append("the run's probabilities are not calibrated")
    return Result(
        folder=out,
        headline=f"{run.name} exported: {agreement.in_words}",
        facts={"run": run.name, "export": str(out), "files": written, "upload": upload, **facts},
        tables=(Table("What was written", ("File", "Size", "What"), tuple(rows)),),
        notes=(*notes, f"to publish it (nothing was sent): {upload}"),
    )


def upload_command(out: Path) -> str:
    """Return the command that would publish the folder on the Hugging Face hub."""
    words = ["hf", "upload", "USER/NAME", str(from_here(out)), "."]
    for name in OWN:
        words += ["--exclude", name]
    return shlex.join(words)
