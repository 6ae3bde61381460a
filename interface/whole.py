"""The whole way: running what is not done of its plan."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interface import flags
from interface.plan import done_stages, plan_table
from interface.stages import STAGES, Outcome, run_stage
from pipeline.options import checked, named
from pipeline.progress import Result
from pipeline.records import RECORD, plain_options, write_json
from pipeline.stages.whole import Demo, Plan, Whole, demo_plan, whole_plan

if TYPE_CHECKING:
    from interface.screen import Screen

# What a newcomer watches, stage by stage.
EXPLAINED = {
    "synthesize": "Draws films with masses and calcifications, in the folders and with the "
    "headers of a CBIS-DDSM download. No film shows a person.",
    "organize": "Reads headers and CSVs, and sorts the mammograms into train, val and test. "
    "All films of a patient stay in one split.",
    "preprocess": "Crops borders, removes letters and labels, smooths, and raises local contrast.",
    "train": "Shows a network each training image once an epoch. val_auc is measured on patients "
    "it has not seen: 0.5 is chance, 1 is perfect. The best epoch is kept.",
    "evaluate": "Measures the best epoch on the test patients, whom neither training nor "
    "validation has seen.",
    "explain": "Draws where a model sees what it calls abnormal, and scores that beside the masks.",
    "compare": "Sets runs side by side on the same test patients, and says what can be ranked.",
    "report": "Writes all of it as one page for a browser.",
}
OF_DETECTORS = {  # where they are anomaly detectors
    "synthesize": "Draws films in the form of mini-MIAS, some of them normal. No film shows a "
    "person.",
    "train": "Two autoencoders and PatchCore learn from normal images alone; ResNet18 is shown "
    "the labels. val_auc is measured on patients they have not seen: 0.5 is chance.",
    "evaluate": "Sets each detector's threshold by normal validation images, and measures all on "
    "the test patients.",
    "compare": "Sets detectors beside the classifier, and beside brightness and contrast, which "
    "they have to beat. Costs are measured, about a minute.",
}
_refuse_unobtainable = named("models.pretrained:refuse_unobtainable")


def run_whole(options: Whole, screen: "Screen") -> Result:
    """Run what is missing or out of date of the way from a download to a report."""
    return _run(whole_plan(options), options.out, screen)


def run_demo(options: Demo, screen: "Screen") -> Result:
    """Run the whole way on a synthetic collection, and say in words what happens."""
    explained = EXPLAINED | (OF_DETECTORS if options.anomaly else {})
    return _run(demo_plan(options), options.out, screen, explained)


def _run(plan: Plan, out: Path, screen: "Screen", explained: Mapping[str, str] = {}) -> Result:
    """Run a plan, leaving out what is done already.

    Args:
        plan: The stages.
        out: Folder that it works in.
        screen: Where it is shown.
        explained: By stage, what to say before it runs.

    Returns:
        With the outcome of each stage in `facts["stages"]`.

    Raises:
        UserError: A stage could not be done; what was done before it is left out the next time.
    """
    done = done_stages(plan)
    screen.table(plan_table(plan, done))
    train = dict(plan)["train"]
    if not (train["data"] / RECORD).is_file():  # before hours of work on the way to it
        _refuse_unobtainable(train["model"], train["weights"])
    outcomes: list[Outcome] = []
    stages: list[tuple[str, Any]] = []
    for number, (name, values) in enumerate(plan, start=1):
        stages.append((name, checked(STAGES[name].options, values)))
        title = f"{number}/{len(plan)}  {name}"
        if name in done:
            screen.heading(f"{title}: done already, {done[name]}")
            continue
        screen.heading(title)
        if name in explained:
            screen.say(explained[name])
        try:
            outcomes.append(run_stage(*stages[-1], screen, in_a_row=True))
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None  # the whole way says how it continues, not its part
    answers = out / "answers.json"
    write_json(answers, {"stages": [{"stage": name, "options": plain_options(one)}
                                    for name, one in stages]})  # fmt: skip
    screen.heading("All is done")
    screen.say("Each stage again, as one command:")
    for name, one in stages:
        screen.say(f"  {flags.command(name, one)}")
    screen.say(f"All of them again: python main.py --answers {answers}")
    report = outcomes[-1].result.facts["report"]
    return Result(
        folder=None,
        headline=f"The report: {report}",
        facts={"stages": [one.as_data() for one in outcomes], "report": report},
        set_aside=sum(one.result.set_aside for one in outcomes),
    )
