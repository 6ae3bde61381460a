"""Any folder of images: class folders, with or without splits, or a table that names them.

`<class>/...`, `<split>/<class>/...`, or images anywhere with a CSV that has a row for each.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError, shown
from pipeline.manifest import DIAGNOSES
from pipeline.paths import from_here
from pipeline.progress import Progress
from pipeline.stages.data import Organize
from pipeline.tables import unread_spreadsheets
from sources.folders.classes import LEAVE_OUT, diagnosis_of, split_of, understood
from sources.folders.files import Found, Picture, find_pictures, first_picture, named, told
from sources.folders.table import Entry, find_tables, join, read_tables, refuse_columns

if TYPE_CHECKING:
    from sources.records import Records

MARKS = "class folders (benign, malignant or the like) or a table of its images"
FEW = 20  # files that are set aside by name; of more, their folder


def is_here(folder: Path) -> bool:
    """Return whether a folder holds class folders, one of them with a name that is known."""
    names = {path.name for path in _class_folders(folder)}
    return len(names) > 1 and any(map(diagnosis_of, names))


def may_be_here(folder: Path) -> bool:
    """Return whether a folder holds a table of images with labels, and images."""
    fitting, _, _ = read_tables(find_tables(folder, None), "")
    return any("label" in one.roles for one in fitting) and first_picture(folder)


def is_near(folder: Path) -> bool:
    """Return whether a folder that nobody named may be one."""
    return is_here(folder) or may_be_here(folder)


def may_be_table(path: Path) -> bool:
    """Return whether a file is a table of images with labels, and no case description."""
    if not path.is_file() or re.search("case_description", path.name, re.IGNORECASE):
        return False
    fitting, _, _ = read_tables([path], "")
    return any("label" in one.roles and "ROI mask file path" not in one.table.columns
               for one in fitting)  # fmt: skip


def half_here(folder: Path) -> str:
    """Say what is missing where there is a table without images, or classes of other names.

    Raises:
        UserError: The table's columns, or the classes' names, are to be said by an option.
    """
    fitting, others, _ = read_tables(find_tables(folder, None), "")
    if fitting and not first_picture(folder):
        return f"{fitting[0].table.path.name} names images, and none of them is there"
    if others and first_picture(folder):
        raise refuse_columns(others[0], "the image")
    names = sorted({path.name for path in _class_folders(folder) if first_picture(path)})
    if len(names) > 1 and not any(map(diagnosis_of, names)):
        held = ", ".join(map(shown, names[:5])) + (" and so on" if len(names) > 5 else "")
        example = f"{shown(names[0])}=normal,{shown(names[1])}=malignant"
        raise UserError(
            f"{folder}: its folders of images ({held}) have the names of no class that is known",
            f'if they are classes, say what they are with --classes "{example}"',
        )
    return ""


def _class_folders(folder: Path) -> Iterator[Path]:
    for path in _visible(folder):
        if split_of(path.name):
            yield from _visible(path)
        else:
            yield path


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.is_dir())


def read(options: Organize, progress: Progress) -> "Records":
    """Read what a folder holds.

    Raises:
        UserError: It holds no image, a class is not understood, or a table's columns are not.
    """
    del progress  # nothing here takes long
    from sources.folders.patients import to_records

    found = find_pictures(options.source)
    if not found.pictures:
        raise _no_picture(options.source, found)
    classes = {picture.name: _class_of(picture) for picture in found.pictures}
    tables, others, broken = read_tables(find_tables(options.source, options.csv), options.columns)
    asked = options.columns or options.csv
    known = any(map(diagnosis_of, classes.values())) or bool(options.classes)
    if not tables and others and (asked or not known):
        raise refuse_columns(others[0], "the image")
    if tables and not any("label" in one.roles for one in tables) and not known:
        raise refuse_columns(tables[0].table, "the label")
    if tables:
        entries, aside, notes = join(tables, found.pictures, classes)
        where, notes = (
            tables[0].table.path,
            [*notes, *_table_notes(tables[0].roles, tables[0].table.path)],
        )
    else:
        entries, aside = _of_folders(found.pictures, classes)
        where, notes = options.source, []
    notes += [f"{table.path.name}: no column is known to name images; not used" for table in others]
    notes += [f"{error.problem}; not used" for error in broken]
    if unread := unread_spreadsheets(options.source):
        notes.append(f"{unread}, and give it as --csv if it tells of the images")
    if not entries:
        why = f" ({aside[0][0]}: {aside[0][1]})" if aside else ""
        raise UserError(f"{where}: tells the class of none of the {len(classes):,} images{why}",
                        "see --classes and --columns")  # fmt: skip
    meant = understood(Counter(entry.label for entry in entries), options.classes, str(where))
    left = Counter(entry.label for entry in entries if meant[entry.label] == LEAVE_OUT)
    notes += [f"left out by --classes: {count:,} images of {name}" for name, count in left.items()]
    notes += _class_notes(meant)
    aside += [(name, f"is a {Path(name).suffix.lower()} file, which cannot be read: save it as PNG")
              for name in found.unread]  # fmt: skip
    if found.unread:
        notes.append(f"images of kinds that cannot be read: {found.unread_counts()}")
    if found.packed:
        names = ", ".join(map(named, found.packed[:3]))
        notes.append(f"packed files are not looked into: {len(found.packed):,} ({names})")
    notes += [*_empty_notes(found), *_split_notes(options.source)]
    kept = [entry for entry in entries if meant[entry.label] != LEAVE_OUT]
    records = to_records(options.source, kept, meant, aside, notes)
    hide = options.pseudonymize
    return replace(
        records,
        set_aside=tuple((what, told(reason, hide)) for what, reason in records.set_aside),
        notes=tuple(told(note, hide) for note in records.notes),
    )


def _no_picture(source: Path, found: Found) -> UserError:
    if found.packed:
        return UserError(
            f"{source}: holds no image, but packed files ({', '.join(found.packed[:3])})",
            "unpack them, and give the folder that they make as --source",
        )
    kinds = f", only {found.unread_counts()}, which cannot be read" if found.unread else ""
    return UserError(f"{source}: holds no PNG, JPEG, TIFF, BMP, PGM or DICOM file{kinds}",
                     "give --source the folder of the images")  # fmt: skip


def _class_of(picture: Picture) -> str:
    """Return the class folder of an image: the first that is no split's."""
    return next((part for part in picture.parts if not split_of(part)), "")


def _of_folders(
    pictures: Sequence[Picture], classes: Mapping[str, str]
) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Return what class folders say, and the images that lie in none, or in no split."""
    splits = {picture.name: split_of(picture.parts[0]) if picture.parts else ""
              for picture in pictures}  # fmt: skip
    in_splits = any(splits.values())
    stray = [picture for picture in pictures
             if not classes[picture.name] or (in_splits and not splits[picture.name])]  # fmt: skip
    reason = "lies in no class folder" + (" of train, val or test" if in_splits else "")
    lost = {picture.name for picture in stray}
    kept = [picture for picture in pictures if picture.name not in lost]
    entries = [Entry(picture, classes[picture.name], split=splits[picture.name],
                     laterality=picture.laterality, view=picture.view)
               for picture in kept]  # fmt: skip
    if len(stray) <= FEW:
        return entries, [(picture.name, reason) for picture in stray]
    places = Counter("/".join(picture.parts) or "." for picture in stray)
    return entries, [(place, f"its {count:,} images: each {reason}")
                     for place, count in sorted(places.items())]  # fmt: skip


def _table_notes(roles: Mapping[str, str], path: Path) -> list[str]:
    used = ", ".join(f"{role} is {column}" for role, column in roles.items())
    return [f"columns of {path.name}: {used}; --columns says otherwise"]


def _class_notes(meant: Mapping[str, str]) -> list[str]:
    """Say what the classes were taken for, where their names do not say it by themselves."""
    taken = [f"{name} is {diagnosis}" for name, diagnosis in sorted(meant.items())
             if name.lower() != diagnosis and diagnosis in DIAGNOSES]  # fmt: skip
    return [f"classes: {', '.join(taken)}; --classes says otherwise"] if taken else []


def _split_notes(source: Path) -> list[str]:
    """Say that a folder is one split of several, which lie beside it."""
    whole = source.absolute()
    own = split_of(whole.name)
    beside = [path.name for path in _visible(whole.parent)
              if own and split_of(path.name) and path.name != whole.name]  # fmt: skip
    if not beside:
        return []
    return [f"{source} is the {own} split alone: {', '.join(beside)} beside it are not read; for "
            f"all of them give --source {from_here(whole.parent)}"]  # fmt: skip


def _empty_notes(found: Found) -> list[str]:
    empty = [place for place in found.empty if place.count("/") < 2 and place != "."]
    more = " and so on" if len(empty) > 5 else ""
    return [f"folders without an image: {', '.join(map(named, empty[:5]))}{more}"] if empty else []
