"""The menu: where the work stands, the next step, and the stages in groups."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interface.session import Asked, ask_and_run, open_in_browser
from interface.stages import STAGES
from pipeline import workspace
from pipeline.errors import UserError
from pipeline.progress import Result

if TYPE_CHECKING:
    from interface.screen import Screen

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Data": ("synthesize", "organize", "preprocess", "probe"),
    "Models": ("tune", "train", "ensemble"),
    "Results": ("evaluate", "explain", "compare", "report"),
    "Use": ("predict", "app", "export"),
    "Upkeep": ("runs", "clean"),
}
WHOLE = ("all", "demo")
QUIT = "quit"
QUESTION = "Next step? (arrows, Enter; Esc goes back, Ctrl-C leaves)"
NAME_WIDTH = 12  # of a stage or group in the menu, in columns


def run_menu() -> None:
    """Show where the work stands, offer the next step, run it, and come back.

    Raises:
        UserError: There is no terminal.
        KeyboardInterrupt: Ctrl-C.
    """
    if not sys.stdin.isatty():
        raise UserError(
            "there is no terminal to ask in",
            "name a stage and give its flags or --batch; see: python main.py --help",
        )
    from interface.prompts.terminal import forget_keys
    from interface.screen import Screen

    screen = Screen()
    choice, offered = "", dict[str, Any]()
    while choice != QUIT:
        forget_keys()  # typed while a stage ran
        chained, memory = bool(choice), workspace.recall()
        if not chained:
            state = workspace.survey(memory)
            screen.home(state)
            choice = _choose(state, state.next_stage)
        if choice != QUIT:
            # The stage that follows is offered as it stands; one that is new here is asked.
            tour = not chained and choice not in memory and STAGES[choice].asks
            asked = Asked({}, offered, "Back to the menu", tour)
            result = _step(choice, asked, screen)
            choice, offered = (result.next_stage, dict(result.next_options)) if result else ("", {})


def _choose(state: workspace.Workspace, following: str) -> str:
    """Ask for the next step: the one that follows, or one of a group."""
    from interface.prompts.terminal import GoBack, pick

    lines = {name: _line(name, state) for name in (following, *WHOLE)}
    lines |= {group: f"{group:<{NAME_WIDTH}}  {', '.join(GROUPS[group])}" for group in GROUPS}
    lines[QUIT] = QUIT
    place = following
    while True:
        try:
            chosen = pick(QUESTION, lines, place, shown="")
            if chosen not in GROUPS:
                return chosen
            place = chosen
            stages = {name: _line(name, state) for name in GROUPS[chosen]}
            return pick(f"{chosen}?", stages, next(iter(stages)), shown="")
        except GoBack:
            continue


def _line(name: str, state: workspace.Workspace) -> str:
    mark = f" ({state.marks[name]})" if name in state.marks else ""
    return f"{name:<{NAME_WIDTH}}  {STAGES[name].title}{mark}"


def _step(name: str, asked: Asked, screen: "Screen") -> Result | None:
    """Ask and run one stage; a mistake or Ctrl-C comes back to the menu."""
    try:
        outcome = ask_and_run(name, asked, screen)
    except UserError:
        return None  # it has been said at the list of answers
    except KeyboardInterrupt as stop:
        screen.say(str(stop) or "Back to the menu.")
        return None
    if outcome is None:
        return None
    if page := outcome.result.facts.get("report"):
        open_in_browser(page)
    return outcome.result
